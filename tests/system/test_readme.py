"""README.md and docs/ agree with the code: samples run, files load, and every name they mention exists.

A table that lists a closed set (reasons, causes, metrics, settings, commands) lists all of it and nothing else.
"""

import asyncio
import itertools
import json
import os
import re
import secrets
import shlex
import subprocess
import sys
import textwrap
import time
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml
from cryptography.fernet import Fernet
from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel
from typer.core import TyperGroup

from notifier.cli.application import COMMANDS as LISTED
from notifier.configuration.live_configuration import LiveConfiguration
from notifier.configuration.loading import LoadedConfiguration, load
from notifier.delivery import facts
from notifier.delivery.facts import Skipped
from notifier.features import FEATURES
from notifier.model.client import Algorithm, Client
from notifier.model.delivery import Delivery
from notifier.model.documents.event_document import read_event
from notifier.model.documents.event_members import EntryDocument, EventBody
from notifier.model.durations import format_duration
from notifier.model.message import Lane, Message
from notifier.model.outcome import Delivered
from notifier.model.presets import PRESETS, Preset
from notifier.model.session_ended import SessionEnded
from notifier.operators.doctor.manual import list_settings as reference_settings
from notifier.queues.rabbitmq.administration import declare_topology
from notifier.queues.rabbitmq.event_queue import RabbitEventQueue
from notifier.queues.rabbitmq.settling import Settling
from notifier.service.service import Service
from notifier.settings.api_tokens import TokenEntry, load_tokens
from notifier.settings.input_issues import submodel
from notifier.settings.service_settings import Settings
from notifier.tokens.key_files import generate_key
from tests.settings.whole_settings import SETTINGS, SOURCE_SETTINGS
from tests.support.lane_looks import at_broker
from tests.support.outcome_facts import attempted
from tests.support.rabbit_options import rabbit_options
from tests.support.rabbitmq_node import RabbitmqNode
from tests.system.command import notifier as run_notifier
from tests.system.waiting import until

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PUBLISHING, EVENT, COMMANDS, METRICS = (
    (ROOT / f"docs/{name}.md").read_text() for name in ("publishing", "event", "commands", "metrics")
)
SETTINGS_PAGES = sorted((ROOT / "docs/configuration").glob("*.md"))
CONFIGURATION = "".join(page.read_text() for page in [ROOT / "docs/configuration.md", *SETTINGS_PAGES])
PAGES = sorted((ROOT / "docs/identity-servers").glob("*.md"))
ABOVE = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
EVIDENCE = [*(ROOT / "docs/evidence").glob("*.md"), *(ROOT / "docs/decisions").glob("*.md")]
BELOW = [*(ROOT / "docs").glob("*.md"), *SETTINGS_PAGES, *EVIDENCE, *PAGES]
DOCUMENTS = {path: path.read_text() for path in sorted([*ABOVE, *BELOW])}
ISS = "https://id.example.com"


# ── reading Markdown ────────────────────────────────────────────────────────────────────────────────────────────


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def block_that_begins(text: str, language: str, beginning: str) -> str:
    (found,) = [block for block in blocks(text, language) if block.startswith(beginning)]
    return found


def table(text: str, above: str) -> list[list[str]]:
    """The rows of the first table below this text."""
    lines = text.split(above, 1)[1].splitlines()
    first = next(index for index, line in enumerate(lines) if re.fullmatch(r"\|[-| ]+\|", line)) + 1
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines[first:])
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def names(rows: list[list[str]], column: int = 0) -> list[str]:
    """Return the names in backquotes of one column, in order."""
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row[column])]


# ── samples ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def taken(url: str, prefix: str) -> list[SessionEnded]:
    """The events that wait, as the worker would understand them."""
    messages = await at_broker(rabbit_options(url, prefix), Lane.EVENTS)
    assert all(message.kind is None for message in messages), "a publisher's message is nobody else's"
    return [read_event(m, max_bytes=131_072, new_id=lambda: "made-up", now=time.time()) for m in messages]


async def run_sample(code: str, url: str, prefix: str) -> tuple[int, str]:
    """Run the Python sample as its reader would, with another exchange name."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code.replace("notifier.events", f"{prefix}.events"),
        env={**os.environ, "AMQP_URL": url.rstrip("/")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(30):
        output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


@pytest.mark.parametrize(("language", "file"), [("python", "publish.py"), ("sh", "publish.sh")])
def test_printed_samples_equal_the_example_files(language: str, file: str) -> None:
    """So that they can be run as they are."""
    assert (ROOT / "docs/examples" / file).read_text() in blocks(PUBLISHING, language)


@pytest.mark.full
async def test_sample_with_one_connection_publishes_a_thousand(amqp_url: str, prefix: str) -> None:
    """Run as it stands: each of a thousand is confirmed, over one connection."""
    code = (ROOT / "docs/examples/publish_many.py").read_text()
    assert await run_sample(code, amqp_url, prefix) == (0, "1000 events are durable\n")
    found = await taken(amqp_url, prefix)
    assert len({event.sid for event in found}) == len(found) == 1000


def test_printed_event_is_valid() -> None:
    """Strictly: not one entry is wrong."""
    (body,) = [block for block in blocks(EVENT, "json") if '"clients"' in block]
    message = Message(lane=Lane.EVENTS, body=body.encode(), tag=None)
    event = read_event(message, max_bytes=131_072, new_id=lambda: "made-up", now=2_000_000_000.0)
    assert (event.id, event.reason, len(event.clients)) == ("4d7c6f1e", "session_expiration", 2)


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────


def written(folder: Path) -> Path:
    """The files of the readme's first walk, as they would be written by its reader."""
    (folder / "key.pem").write_bytes(generate_key(Algorithm.RS256))
    (folder / "log.key").write_text("0" * 64)
    for name in ("notifier.yaml", "clients.yaml"):
        (folder / name).write_text(block_that_begins(README, "yaml", f"# {name}"))
    return folder / "notifier.yaml"


def test_readme_files_load_as_printed(tmp_path: Path) -> None:
    """Without a mistake, and with the client they name."""
    loaded: LoadedConfiguration = load(written(tmp_path), {}, FEATURES)
    assert loaded.registry.resolve(ISS, "shop", None) is not None
    assert loaded.settings.queue.sqlite_file is None


def test_readme_files_without_queue_use_sqlite(tmp_path: Path) -> None:
    """Beside the configuration, as if its documented default were written down there."""
    path = written(tmp_path)
    document = yaml.safe_load(path.read_text())
    for queue in ({}, {"queue": {"url": DOCUMENTED[QUEUE_URL]}}):
        document = {**{name: value for name, value in document.items() if name != "queue"}, **queue}
        path.write_text(yaml.safe_dump(document))
        assert load(path, {}, FEATURES).settings.queue.sqlite_file == tmp_path / "notifier.db"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "docs/relay.md"], ids=lambda path: path.name)
def test_printed_configuration_of_each_server_loads(page: Path, tmp_path: Path) -> None:
    """With the files that it names; no server is asked. Addresses that its events bring count."""
    indented = re.findall(r"^ *```yaml\n(.*?)^ *```$", page.read_text(), re.DOTALL | re.MULTILINE)
    for block in map(textwrap.dedent, indented):
        if re.match(r"(#.*\n)*issuers:", block) is None:
            continue
        document = yaml.safe_load(block)
        for name in re.findall(r"(?:file|_file): ([\w./-]+)", block):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            content = generate_key(Algorithm.ES256) if name.endswith(".pem") else b"secret"
            (tmp_path / name).write_bytes(b"[]" if name.endswith(".yaml") else content)
        (tmp_path / "web.keys").write_bytes(Fernet.generate_key())
        (tmp_path / "notifier.yaml").write_text(block)
        loaded = load(tmp_path / "notifier.yaml", {"NOTIFIER_QUEUE__URL": "amqp://localhost"}, FEATURES)
        assert loaded.settings.issuers.keys() == document["issuers"].keys()
        ignored = [each for each in loaded.warnings if each.path.endswith("publishers")]
        assert ignored == [] or "sources:" in block or "relays:" in block  # their events bring no addresses


def test_printed_tokens_load(tmp_path: Path) -> None:
    """And may publish."""
    (tmp_path / "tokens.yaml").write_text(
        block_that_begins(CONFIGURATION.split("## The tokens of the API")[1], "yaml", "# tokens.yaml")
    )
    (token,) = load_tokens(tmp_path / "tokens.yaml", [ISS])
    assert token.scopes == {"publish"}


# ── permissions ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def vhost(rabbitmq: RabbitmqNode | None) -> str:
    """A new virtual host with the users and permissions of docs/publishing.md. All goes with the node."""
    if rabbitmq is None:
        pytest.skip("users can only be made on a node of our own")
    name = f"readme-{secrets.token_hex(4)}"
    rabbitmq.ctl("add_vhost", name)
    printed = (line for block in blocks(PUBLISHING, "sh") for line in block.splitlines())
    for line in printed:
        if line.startswith("rabbitmqctl set_permissions"):
            command = shlex.split(line.replace("-p /", f"-p {name}", 1))[1:]
            rabbitmq.ctl("add_user", command[3], "secret")
            rabbitmq.ctl(*command)
    return name


@pytest.mark.full
async def test_printed_permissions_suffice_and_permit_no_more(
    rabbitmq: RabbitmqNode, vhost: str, tmp_path: Path
) -> None:
    """The worker declares its topology; the publisher publishes an event, and nothing that passes for ours.

    `notifier publish` needs no more than any publisher: it declares nothing, and waits for what a worker declares.
    The Python sample runs as it stands: what it publishes is understood, and where nobody would get it, it fails.
    """
    worker, publisher = (f"amqp://{user}:secret@127.0.0.1:{rabbitmq.port}/{vhost}" for user in ("notifier", "idp"))
    (code,) = blocks(PUBLISHING, "python")
    event = json.dumps({"iss": ISS, "sub": "alice", "clients": ["shop"]})
    queue = RabbitEventQueue(rabbit_options(publisher))
    await queue.open()

    async def problem() -> str:
        return str(queue.status().problem)

    await until(problem, lambda text: "no exchange and queue notifier.events yet" in text)
    await queue.close()
    status, output = await run_sample(code, publisher, "notifier")
    assert (status, "NOT_FOUND" in output) == (1, True), output
    await declare_topology(rabbit_options(worker), Settling(seconds=0))
    words = ("publish", "--url", publisher, "--wait", "1ms")
    done = await asyncio.to_thread(run_notifier, *words, cwd=tmp_path, stdin=event)
    assert (done.returncode, done.stderr) == (3, "")  # no worker replies
    assert len(await taken(worker, "notifier")) == 1
    assert await run_sample(code, publisher, "notifier") == (0, "")
    [_, of_sample] = await taken(worker, "notifier")
    assert (of_sample.iss, of_sample.sub, of_sample.sid, of_sample.id_given) == (ISS, "248289761001", "08a5019c", True)
    forgery = code.replace('await channel.get_exchange("notifier.events", ensure=False)', "channel.default_exchange")
    status, output = await run_sample(forgery, publisher, "notifier")
    assert (status, "access to exchange 'amq.default'" in output) == (1, True), output
    assert len(await taken(worker, "notifier")) == 2


# ── closed lists ────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_member_of_the_event_has_its_row() -> None:
    """The members of an entry of `clients` are listed, too."""
    assert set(names(table(EVENT, "# The event"))) == set(EventBody.__annotations__)
    reported = EVENT.split("An object in `clients` has", 1)[1].split(";", 1)[0]
    assert set(re.findall(r"`(\w+)`", reported)) == set(EntryDocument.__annotations__)


async def test_every_metric_has_its_row(tmp_path: Path) -> None:
    """As the page names them, and with the labels of their series."""
    path = written(tmp_path)
    document = yaml.safe_load(path.read_text())
    path.write_text(json.dumps({**document, "queue": {"url": "amqp://localhost"}, "spool": {"folder": "spool"}}))
    service = Service(LiveConfiguration(path, {}, load(path, {}, FEATURES)))
    service.metrics.observe(Skipped(iss=ISS, client_id="shop", event_id="1"))
    service.metrics.observe(facts.RetryScheduled(delivery=delivery(), due=0.0))
    service.metrics.observe(attempted(delivery(), Delivered(status=200), jti="1"))
    service.metrics.count_surplus(Client(iss=ISS, client_id="shop", backchannel_logout_uri=None))
    service.metrics.signatures.add_kinds(("vault",))
    page = (await service.metrics_page.render()).decode()
    served = set(re.findall(r"^# TYPE notifier_(\w+)", page, re.MULTILINE))
    rows = table(METRICS, "## Metrics")
    assert set(names(rows)) == served
    labels = {name: set(names([row], 1)) for row in rows for name in names([row])}
    for sample in (sample for family in text_string_to_metric_families(page) for sample in family.samples):
        name = re.sub(r"^notifier_|_(bucket|count|sum|created)$", "", sample.name)
        if name in served:
            assert sample.labels.keys() - {"le"} == labels[name], name
    for name in re.findall(r"notifier_(\w+)", METRICS):
        assert name in served, name


def delivery() -> Delivery:
    return Delivery(id="1", event_id="1", id_given=True, iss=ISS, client_id="shop", sub="alice", sid="s1")


# ── settings ────────────────────────────────────────────────────────────────────────────────────────────────────


OF_SOURCES = "registry.sources[]."
QUEUE_URL = "queue.url"
_THROUGH: Mapping[object, str] = {dict: ".<iss>", tuple: "[]"}
_NAMED = ("sources", "upstreams", "relays", "check_session")
_IN_PARTS = (
    "sources.<name>.", "upstreams.<name>.", "relays.<name>.", "web.", "issuers.<iss>.keys[].", "api.console.oidc.",
)  # fmt: skip
"""Members of lists and maps, which no document can set alone."""
_DERIVED = ("by preset", "by formula", "the only issuer", "the user's own", "the ARN's", "the metadata's")


def settings_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Each setting with its default; `...` where it is required, None where there is none."""
    for own, field in model.model_fields.items():
        name = field.alias or own
        inner = submodel(field.annotation)
        if inner is None:
            yield prefix + name, ... if field.is_required() else field.default
        else:
            origin = typing.get_origin(field.annotation)
            through = ".<name>" if name in _NAMED and origin is dict else _THROUGH.get(origin, "")
            yield from settings_of(inner, f"{prefix}{name}{through}.")


def as_yaml(default: object) -> str:
    """A default as YAML would have it."""
    if isinstance(default, float):
        return format_duration(default)
    return "[]" if default == () else str(default).lower() if isinstance(default, bool) else str(default)


DOCUMENTED = {setting.name: setting.default.strip("`") for setting in reference_settings()}


def test_every_setting_is_documented_with_its_default() -> None:
    """Nothing is missing, nothing is invented, and to write a default down changes nothing."""
    elsewhere = (OF_SOURCES, "registry.defaults.")  # the defaults are those of a client
    sections = SETTINGS.model_fields
    reported = {name: default for name, default in DOCUMENTED.items() if name.split(".")[0] in sections}
    reported = {name: default for name, default in reported.items() if not name.startswith(elsewhere)}
    real = {path: default for path, default in settings_of(SETTINGS) if not path.startswith(elsewhere)}
    assert sorted(reported) == sorted(real)
    for path, default in real.items():
        plain = "required" if default is ... else "–" if default in (None, "") else None
        if path.startswith(_IN_PARTS):
            empty = ("–",) if default == () else ()
            assert reported[path] in (plain or as_yaml(default), *empty, *_DERIVED) or "` + `" in reported[path], path
        elif plain is not None:
            assert reported[path] == plain, path
        elif path != QUEUE_URL:  # what is left out depends on where the configuration is
            written_down = SETTINGS.model_validate(nested(path, yaml.safe_load(reported[path])))
            assert written_down.model_dump() == as_left_out(path).model_dump(), path


def test_every_setting_of_a_registry_source_is_documented() -> None:
    """Each kind has a table. Files for TLS are the same for all."""
    reported = {name: default for name, default in DOCUMENTED.items() if name.startswith(OF_SOURCES)}
    real = {path: default for path, default in settings_of(SOURCE_SETTINGS, OF_SOURCES) if ".tls." not in path}
    assert sorted(name for name in reported if ".tls." not in name) == sorted(real)
    for path, default in real.items():
        if reported[path].endswith("MiB"):
            assert int(reported[path].removesuffix("MiB")) * 1024 * 1024 == default, path
            continue
        expected = "required" if default is ... else "–" if default is None else as_yaml(default)
        assert reported[path] in (expected, "its kind", "the user's own"), path


def as_left_out(path: str) -> Settings:
    """Include the section that has no default as a whole."""
    return SETTINGS.model_validate({"api": {}} if path.startswith("api.") else {})


def nested(path: str, value: object) -> object:
    """The document that sets this one alone."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


def test_every_member_of_a_token_and_every_preset_is_documented() -> None:
    """Likewise."""
    tokens = [row[0].strip("`") for row in table(CONFIGURATION, "## The tokens of the API")]
    assert sorted(tokens) == sorted(TokenEntry.model_fields)
    presets = {row[0].strip("`"): row[1].replace("`", "") for row in table(CONFIGURATION, "| preset | sets |")}

    def sets(preset: Preset) -> str:
        timeout = None if preset.timeout is None else format_duration(preset.timeout)
        given = {"typ": preset.typ, "subject": preset.subject, "timeout": timeout}
        given["audience"] = None if preset.audience is None else "list"
        return ", ".join(f"{name}: {value}" for name, value in given.items() if value) or "–"

    assert presets == {name: sets(preset) for name, preset in PRESETS.items()}


def test_every_setting_that_is_mentioned_exists() -> None:
    """Under the path it is mentioned by."""
    known = {part for name, _ in settings_of(SETTINGS) for part in prefixes(name.replace("[]", ""))}
    pattern = r"`((?:queue|ops|api|issuers|delivery|egress|registry|sources|log|metrics)\.[\w.<>\[\]]+)(?::[^`]*)?`"
    reported = ((path.name, name) for path, text in DOCUMENTS.items() for name in re.findall(pattern, text))
    reported = ((path, name.rstrip(".").replace("[]", "").replace("<kind>", "http")) for path, name in reported)
    assert [(path, name) for path, name in reported if name not in known] == []


def prefixes(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[:length]) for length in range(1, len(parts) + 1))


# ── commands, links ─────────────────────────────────────────────────────────────────────────────────────────────


def commands() -> dict[str, set[str]]:
    """Every command that can be typed, `keys generate` and the like in full, and its options."""
    found = {}
    for named in LISTED:
        name, command = named.name, named.load()
        below = command.commands if isinstance(command, TyperGroup) else {"": command}
        for sub, leaf in below.items():
            found[f"{name} {sub}".strip()] = {option for parameter in leaf.params for option in parameter.opts}
    return found


def test_every_command_has_its_row() -> None:
    """And no others."""
    reported = names(table(COMMANDS, "\n| command | |"))
    assert {name.removeprefix("notifier ").removesuffix(" event") for name in reported} == set(commands())


def test_every_command_that_is_mentioned_exists() -> None:
    """With its options."""
    known = commands()
    wrong = []
    for path, text in DOCUMENTS.items():
        typed = re.findall(r"`notifier ([a-z][^`]*)`", text)
        typed += re.findall(r"(?:^\s*|-- )notifier ([a-z][^#&|\n]*)", "\n".join(blocks(text, "sh")), re.MULTILINE)
        for line in typed:
            words = line.split()
            name = next((name for name in known if words[: len(name.split())] == name.split()), None)
            options = {word for word in words if word.startswith("-") and word != "-"}
            if name is None or not options <= known[name]:
                wrong.append((path.name, line))
    assert wrong == []


def test_readme_names_both_commands_of_a_new_machine() -> None:
    """Alone in the first block, and both goals of the Makefile."""
    first = blocks(README, "sh")[0].splitlines()
    assert [line.partition("#")[0].split() for line in first] == [["make", "demo"], ["make", "test"]]


def test_both_commands_take_the_same_time_wherever_they_are_described() -> None:
    """In README.md, CONTRIBUTING.md and the Makefile."""
    pages = [(ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md", "Makefile")]
    for goal in ("demo", "test"):
        lines = [re.findall(rf"^(?:make )?{goal}(?: |:).*# (.*)$", page, re.MULTILINE)[0] for page in pages]
        assert len({tuple(re.findall(r"\d+ (?:s|min)\b", line)) for line in lines} - {()}) == 1, lines


def test_every_make_goal_that_is_mentioned_exists() -> None:
    """In each document of the repository, in its text and in its blocks."""
    goals = {*re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)}
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    mentioned = {
        (name, goal)
        for name in listed.splitlines()
        for goal in re.findall(r"(?:`|^ *|&& )make ([a-z][a-z0-9-]*)", (ROOT / name).read_text(), re.MULTILINE)
    }
    assert len(mentioned) > 40
    assert {(name, goal) for name, goal in mentioned if goal not in goals} == set()


def test_every_link_has_a_target() -> None:
    """To an existing file and heading; addresses outside the repository are not requested."""
    wrong = []
    for path, text in DOCUMENTS.items():
        for target in re.findall(r"\]\((?!https:)([^)]+)\)", text):
            file, _, anchor = target.partition("#")
            there = path.parent / file if file else path
            if not there.exists() or (anchor and anchor not in anchors(there.read_text())):
                wrong.append((path.name, target))
    assert wrong == []


def anchors(text: str) -> set[str]:
    """What a link into a document may name: its headings, as GitHub spells them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_document_is_in_the_index() -> None:
    """docs/README.md leads to each, and docs/identity-servers/README.md to each page of a server."""
    pages = (ROOT / "docs/identity-servers/README.md").read_text()
    assert [page.name for page in PAGES if page.name != "README.md" and f"({page.name})" not in pages] == []
    index = (ROOT / "docs/README.md").read_text()
    assert [
        path.name for path in (ROOT / "docs").glob("*.md") if path.name != "README.md" and f"({path.name}" not in index
    ] == []


def test_every_file_that_is_mentioned_exists() -> None:
    """Of the code, the tests, the tools and what is deployed."""
    pattern = r"`((?:notifier|tests|tools|deploy|helm|docs)/[\w./-]*)(?:::\w+)?`"
    reported = ((path.name, name) for path, text in DOCUMENTS.items() for name in re.findall(pattern, text))
    assert [(path, name) for path, name in reported if not (ROOT / name).exists()] == []
