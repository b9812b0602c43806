"""The package for Duende IdentityServer: its sources and README agree with notifier.

There is no .NET where these tests run: .github/workflows/publisher-duende.yaml compiles and runs it. Here its sources
are read by their grammar.
"""

import json
import re
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
from cryptography.fernet import Fernet, MultiFernet

from notifier.features.browsers.front_channel_context import open_context
from notifier.features.browsers.front_channel_routes import COOKIES_SEEN_HEADER, PAGE_PATH, FrontChannelPage
from notifier.features.browsers.web_settings import WebIssuerSettings
from notifier.messages.event_clients import PART_CLIENTS, split_event
from notifier.model.client import Algorithm, FrontChannelClient
from notifier.model.documents.cloudevents import MAX_ID_BYTES
from notifier.model.documents.event_document import event_schema, parse_event
from notifier.model.documents.event_members import EntryDocument, EventBody
from notifier.model.front_channel import PagePlan
from notifier.model.message import Lane, Message
from notifier.model.registry import Registry
from notifier.model.session_ended import ClientEntry, SessionEnded
from notifier.settings.queue_settings import QueueSettings
from publishers.tests.c_sharp import Property, constants, every, parsed, properties, text, texts

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "publishers/duende"
COMMON = PACKAGE / "src/Notifier.Publisher"
SHARED = PACKAGE / "src/Notifier.IdentityServer.Shared"
README = "\n".join((PACKAGE / name).read_text() for name in ("reference.md", "README.md"))
PREFIX = QueueSettings.model_fields["prefix"].default


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table below this line of the README."""
    lines = README[README.index(heading) :].splitlines()
    first = next(nth for nth, line in enumerate(lines) if line.startswith("|"))
    last = next(nth for nth, line in enumerate(lines) if nth > first and not line.startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[first + 2 : last]]


# ── the sources ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_it_publishes_to_the_services_exchanges() -> None:
    """By the names that notifier declares without settings, and to the API's path."""
    defaults = {each.name: each.default for each in properties(COMMON / "NotifierOptions.cs", "NotifierOptions")}
    assert (defaults["Exchange"], defaults["BulkExchange"]) == (f"{PREFIX}.{Lane.EVENTS}", f"{PREFIX}.{Lane.BULK}")
    assert "session.ended" in texts(COMMON / "Publishing/AmqpConnection.cs")
    assert {"/v1/events", "/v1/events?lane=bulk"} <= {*texts(COMMON / "Publishing/HttpTransport.cs")}


def test_its_limits_are_the_services() -> None:
    """What would be refused or split there is refused or split here."""
    assert int(constants(COMMON / "Publishing/AmqpTransport.cs")["MaxIdBytes"]) == MAX_ID_BYTES
    assert int(constants(SHARED / "SessionEndedDispatcher.cs")["MaxClientsPerEvent"]) == PART_CLIENTS


def test_it_offers_the_services_algorithms() -> None:
    """Any other would be a mistake in each of its events."""
    (listed,) = (
        node
        for node in every(parsed(COMMON / "NotifierOptionsValidator.cs"), "field_declaration")
        if "Algorithms" in text(node)
    )
    assert sorted(re.findall(r'"(\w+)"', text(listed))) == sorted(Algorithm)


def test_it_recognizes_the_services_pages() -> None:
    """Their path, the marks of a page and of a refusal: otherwise the server's own frames would repeat endlessly."""
    watch = {*texts(COMMON / "FrontChannel/PageAvailability.cs")}
    path, _context, _rest = PAGE_PATH.partition("{")
    assert any(path in each for each in watch)
    assert COOKIES_SEEN_HEADER in watch
    settings = WebIssuerSettings(url="https://login.example.com")
    (mark,) = (each for each in watch if each.startswith("id="))
    assert mark.replace("\\", "") in FrontChannelPage().render(PagePlan(asked=()), settings, None)


def test_its_pages_are_read_as_meant() -> None:
    """What its own tests expect in a page's address: whose session, a client's address, and none."""
    file = PACKAGE / "tests/Notifier.Publisher.Tests/FrontChannelTests.cs"
    keys = MultiFernet([Fernet(Fernet.generate_key())])
    contexts = []
    for plain in (each for each in texts(file) if each.startswith("[")):
        opened = open_context(keys.encrypt(zlib.compress(plain.encode())).decode().rstrip("="), keys, time.time())
        assert opened is not None, plain
        contexts.append(opened.context)
    session, question = contexts
    assert (session.iss, session.sid) == ("https://id.example.com", "s1")
    assert session.clients == (("shop", None), ("käse", None))
    found = FrontChannelClient(
        frontchannel_logout_uri="https://shop.example.com/out?a=1", frontchannel_logout_session_required=True
    )
    assert session.supplied == {"shop": found}
    assert question.clients == ()


# ── what it writes ──────────────────────────────────────────────────────────────────────────────────────────────


def snake(name: str) -> str:
    """As .NET's SnakeCaseLower has it."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def named(found: list[Property]) -> set[str]:
    """The members in JSON."""
    return {each.json or snake(each.name) for each in found}


def test_it_writes_members_that_the_event_has() -> None:
    """All of them, and no other: notifier would ignore an unknown member silently.

    Addresses for the browser stand in those of the pages that it makes itself.
    """
    events = COMMON / "Events"
    found = [each for each in properties(events / "SessionEnded.cs", "SessionEnded") if each.name != "AllClients"]
    assert named(found) == set(EventBody.__annotations__)
    in_pages = {"frontchannel_logout_uri", "frontchannel_logout_session_required"}
    written = named(properties(events / "SessionEndedClient.cs", "SessionEndedClient"))
    assert written == set(EntryDocument.__annotations__) - in_pages


def written() -> tuple[dict[str, Any], dict[str, Any]]:
    """The event and the client that its own tests expect, byte for byte."""
    found = [
        json.loads(each)
        for each in texts(PACKAGE / "tests/Notifier.Publisher.Tests/SessionEndedTests.cs")
        if each.startswith("{")
    ]
    event, client = found
    return event, client


def read(event: dict[str, Any]) -> SessionEnded:
    """The event as a worker reads it, after the publisher's broker user was checked."""
    jsonschema.validate(event, event_schema(), format_checker=jsonschema.FormatChecker())
    body = json.dumps(event).encode()
    message = Message(lane=Lane.EVENTS, body=body, tag=1, user_id="idp", message_id=event["id"])
    found = parse_event(message, max_bytes=131_072, new_id=lambda: "made up", now=2e9)
    assert found.wrong is None
    return found.event


def test_its_event_is_read_as_meant() -> None:
    """Id, user, session, time and reason; and the client with all its data of the server's own store."""
    event, client = written()
    found = read({**event, "clients": [client]})
    assert (found.id, found.id_given, found.publisher) == ("e1", True, "idp")
    assert (found.iss, found.sub, found.sid) == ("https://id.example.com", "alice", "s1")
    assert (found.ended_at, found.reason) == (1769860800.0, "user_logout")
    (entry,) = found.clients
    assert entry == ClientEntry(
        client_id="shop",
        backchannel_logout_uri="https://shop.example.com/logout",
        backchannel_logout_session_required=True,
        id_token_signed_response_alg=Algorithm.ES256,
        sub="pairwise",
        sid="own",
    )


def test_all_clients_are_those_of_the_registry() -> None:
    """The word that it writes where nobody knows the clients any more."""
    event, _client = written()
    (word,) = {each for each in texts(COMMON / "Events/SessionEndedClientsConverter.cs") if each == "*"}
    found = read({**event, "clients": word})
    assert found.clients == "*"
    assert [*split_event(found, Registry(), 0.0)] == []


# ── its README ──────────────────────────────────────────────────────────────────────────────────────────────────


def settings(of: str = "NotifierOptions", prefix: str = "") -> Iterator[tuple[str, str]]:
    """Each setting with its default, those of sections too."""
    for each in properties(COMMON / "NotifierOptions.cs", of):
        if each.default == "new()":
            yield from settings(each.kind, f"{prefix}{each.name}:")
        else:
            yield prefix + each.name, "" if each.default in (None, "", "[]") else str(each.default)


def test_the_table_of_settings_is_the_code() -> None:
    """Each with its default. A word in place of a value describes the behaviour without one."""
    found: dict[str, str] = {}
    for names, defaults, _meaning in rows("## Settings"):
        values = [value.strip("`") for value in defaults.split(", ")]
        keys = [name.strip("`") for name in names.split(", ")]
        found |= dict(zip(keys, values * len(keys) if len(values) == 1 else values, strict=True))
    words = {"required": "", "as the server is set": "", "FrontChannel:Url": ""}
    assert {name: words.get(value, value) for name, value in found.items()} == dict(settings())


def test_its_broker_user_has_the_rights_of_every_publisher() -> None:
    """Those of docs/publishing.md, which are tried on a real broker."""
    (ours,) = re.findall(r"rabbitmqctl (set_permissions .*)", README)
    found = (ROOT / "docs/publishing.md").read_text().splitlines()
    assert f"rabbitmqctl {ours}" in [" ".join(line.split()) for line in found]
