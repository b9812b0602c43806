"""`notifier sources`: what the sources are, and what a recorded message becomes, before anything is bound."""

import json
from pathlib import Path

import pytest

from notifier.model.documents.event_members import EntryDocument, EventBody
from tests.cli.in_process import notifier
from tests.features.sources.sns_stand_in import ARN
from tests.features.sources.sns_stand_in import signed as posted
from tests.features.sources.source_documents import RECORDED
from tests.tokens.transmitter import AUDIENCE, CLAIMS, ISSUER, signed

ISS = "https://id.example.com"
SOURCES = {
    "duende": {"preset": "duende", "issuer": ISS, "bind": [{"exchange": "Shop:LoggedOut"}]},
    "own": {
        "issuer": ISS,
        "event": {"sub": '"$headers"."X-User"', "id": '"$properties".message_id', "clients": "apps"},
    },
    "hook": {
        "issuer": ISS,
        "event": {"sub": "user", "sid": "session", "clients": "'*'"},
        "http": {"hmac": {"header": "x-sig", "secret_file": "secret"}},
    },
    "any": {
        "issuer": ISS,
        "content_type": "json",
        "event": {"sub": "user", "clients": "'*'", "ended_at": "at"},
        "http": {"header": "authorization", "value_file": "secret"},
    },
    "either": {
        "issuer": ISS,
        "event": {"sub": "user", "clients": "'*'", "id": "user"},
        "http": {"header": "authorization", "value_file": "secret"},
        "bind": [{"exchange": "Shop:LoggedOut"}],
    },
    "kc": {
        "preset": "keycloak_ssf",
        "issuer": ISS,
        "http": {"set": {"issuer": ISSUER, "jwks_uri": f"{ISS}/keys", "audience": AUDIENCE}},
    },
    "topic": {
        "issuer": ISS,
        "event": {"sub": "from_json(Message).user", "clients": "'*'", "id": "MessageId"},
        "http": {"sns": {"topic_arn": ARN}},
    },
    "whole": {"issuer": ISS, "event": {name: name for name in EventBody.__annotations__}},
    "broken": {"preset": "duend", "issuer": ISS, "event": {"sub": "lowr(a)"}},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A configuration with these sources, and a message of Duende."""
    config = {"issuers": {ISS: {"keys": [{"file": "n.json"}]}}, "sources": SOURCES}
    (tmp_path / "n.json").write_text(json.dumps(config))
    (tmp_path / "secret").write_text("s3cret")
    whole = json.loads((RECORDED / "duende" / "mt8.5.12-is8-masstransit-context.json").read_text())
    (tmp_path / "message.json").write_text(json.dumps(whole["body"]))
    return tmp_path


def test_a_recorded_message_is_shown_as_the_event_that_it_becomes(folder: Path) -> None:
    """In words and as JSON; from a body, and from a dead letter with the headers and properties that came with it."""
    done = notifier("sources", "try", "-c", "n.json", "duende", "message.json", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["clients"] == ["shop", "mail"]
    raw = {"body": '{"apps": ["a", 5]}', "headers": {"x-user": "alice"}, "message_id": "m-1"}
    (folder / "own.json").write_text(json.dumps({"reason": "malformed", "dead_since": "now", "raw": raw}))
    done = notifier("sources", "try", "-c", "n.json", "own", "own.json", "--json", cwd=folder)
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["events"]) == (1, [{"id": "m-1", "iss": ISS, "sub": "alice", "clients": ["a"]}])
    assert [mistake["path"] for mistake in answer["mistakes"]] == ["sources.own.event.clients[1]"]


def test_event_is_shown_with_each_member(folder: Path) -> None:
    """Of the event and of an entry: the worker uses each of them."""
    entry = {
        "client_id": "shop",
        "backchannel_logout_uri": "https://shop.example.com/logout",
        "backchannel_logout_session_required": True,
        "id_token_signed_response_alg": "ES256",
        "frontchannel_logout_uri": "https://shop.example.com/front",
        "frontchannel_logout_session_required": False,
        "sub": "a-at-shop",
        "sid": "s-at-shop",
    }
    event = {
        "id": "e-1",
        "iss": ISS,
        "sub": "alice",
        "sid": "s-1",
        "email": "alice@example.com",
        "clients": [entry, "mail"],
        "ended_at": "2026-01-31T12:00:00.000000Z",
        "not_after": "2026-02-28T12:00:00.000000Z",
        "reason": "user_logout",
    }
    assert (event.keys(), entry.keys()) == (EventBody.__annotations__.keys(), EntryDocument.__annotations__.keys())
    (folder / "whole.json").write_text(json.dumps(event))
    done = notifier("sources", "try", "-c", "n.json", "whole", "whole.json", cwd=folder)
    assert (json.loads(done.stdout), done.stderr) == (event, "")


def test_a_misspelt_member_is_a_warning(folder: Path) -> None:
    """Of an entry: an unknown member of `event` is an error of the source."""
    event = {"iss": ISS, "sub": "alice", "clients": [{"client_id": "shop", "sessionid": "s-1"}]}
    (folder / "whole.json").write_text(json.dumps(event))
    done = notifier("sources", "try", "-c", "n.json", "whole", "whole.json", cwd=folder)
    assert done.returncode == 0
    assert "warning: sources.whole.event: clients[0].sessionid is unknown and left out, so that all" in done.stderr


EVENT = b'{"user": "alice", "at": "2026-01-31T12:00:00Z"}'
REVOKES = {**CLAIMS, "sub_id": {"format": "iss_sub", "iss": ISS, "sub": "alice"}}


@pytest.mark.parametrize(
    ("source", "body"),
    [
        ("hook", EVENT),
        ("any", EVENT),
        ("either", EVENT),
        ("kc", signed(REVOKES)),
        ("kc", json.dumps(REVOKES).encode()),
        ("topic", posted()),
    ],
    ids=range(6),
)
def test_a_body_is_read_as_it_is_posted(folder: Path, source: str, body: bytes) -> None:
    """A token, its claims, or a message of SNS with its envelope: no proof is checked."""
    (folder / "body").write_bytes(body)
    done = notifier("sources", "try", "-c", "n.json", source, "body", cwd=folder)
    assert (done.returncode, json.loads(done.stdout)["sub"]) == (0, "alice"), done.stderr


@pytest.mark.parametrize(
    ("document", "warned"),
    [
        ({"user": "alice", "session": "s1"}, True),
        ({"user": "alice"}, False),  # a new id at each reading, reported beside the event
    ],
)
def test_an_id_that_a_second_message_has_too_is_warned_of(folder: Path, document: object, warned: bool) -> None:
    """A digest of the session, without a time: the user's next sign-out of it would be taken for a copy."""
    (folder / "body").write_text(json.dumps(document))
    done = notifier("sources", "try", "-c", "n.json", "hook", "body", "--json", cwd=folder)
    assert done.returncode == 0
    paths = [warning["path"] for warning in json.loads(done.stdout)["warnings"]]
    assert paths == ["sources.hook.event.id"] * warned
    shown = notifier("sources", "try", "-c", "n.json", "hook", "body", cwd=folder).stderr
    assert ("another message with the same content counts as a copy; read ended_at or id" in shown) is warned
    (folder / "body").write_bytes(EVENT)
    for source in ("any", "either"):
        assert "copy" not in notifier("sources", "try", "-c", "n.json", source, "body", cwd=folder).stderr


def test_a_source_that_is_wrong_exits_2_with_each_mistake(folder: Path) -> None:
    """So does an unknown source, with the names of all."""
    done = notifier("sources", "try", "-c", "n.json", "broken", "message.json", cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert "sources.broken.preset: there is no preset duend; did you mean duende?" in done.stderr
    assert "sources.broken.event.sub: there is no function lowr(); did you mean lower?" in done.stderr
    done = notifier("sources", "try", "-c", "n.json", "duened", "message.json", cwd=folder)
    assert (done.returncode, "there are duende, own" in done.stderr) == (2, True)
