"""The sources that docs/sources.md shows read the messages that it shows beside them."""

import json
import re
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from notifier.features.sources.source import Source
from notifier.features.sources.source_compiler import compile_sources
from notifier.model.message import Message
from tests.features.sources.source_documents import ISS, message, translated
from tests.settings.whole_settings import SETTINGS
from tests.support.apt_programs import program

PAGE = (Path(__file__).parents[3] / "docs/sources.md").read_text()


def shown(heading: str) -> tuple[dict[str, Any], list[str]]:
    """The section `sources` below this heading, and the messages in JSON below it."""
    section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return yaml.safe_load(text)["sources"], re.findall(r"^```json\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def example(heading: str) -> tuple[Source, list[Message]]:
    """The only source below this heading, and the messages below it."""
    named, bodies = shown(heading)
    ((name, options),) = named.items()
    queue = {"url": "amqp://broker"}
    issuers = {ISS: {"keys": [{"file": __file__}]}}
    settings = SETTINGS.model_validate({"issuers": issuers, "queue": queue, "sources": {name: placed(options)}})
    sources, mistakes = compile_sources(settings)
    assert mistakes == []
    return sources[name], [message(body.encode()) for body in bodies]


def placed(options: Any) -> Any:
    """The same with files that are there."""
    text = re.sub(r'"(value_file|secret_file)": "[^"]*"', rf'"\1": "{__file__}"', json.dumps(options))
    return json.loads(text)


def test_the_first_example_is_accepted_as_it_is_shown() -> None:
    """Its queue has exchanges to bind to, and its listener takes POST /v1/events/NAME."""
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE.split("\n## ", 1)[0], re.MULTILINE | re.DOTALL)
    settings = SETTINGS.model_validate(yaml.safe_load(text.replace("key.pem", json.dumps(__file__))))
    sources, mistakes = compile_sources(settings)
    assert (set(sources), mistakes) == ({"duende", "shop"}, [])
    assert settings.api is not None


EXAMPLES: dict[str, list[dict[str, Any]]] = {
    "Amazon SNS": [
        {
            "sub": "248289761001",
            "sid": "08a5019c",
            "clients": "*",
            "ended_at": 1769860800.123,
            "id": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        },
    ],
    "Azure Event Grid": [
        {"sub": "248289761001", "sid": "08a5019c", "clients": "*", "ended_at": 1769860800.123, "id": "9aeb0fdf-c01e"},
    ],
    "Debezium": [
        {"sub": "248289761001", "sid": "08a5019c", "clients": ("shop", "mail"), "ended_at": 1763719200.123456},
    ],
}


@pytest.mark.parametrize("heading", EXAMPLES)
def test_a_message_of_the_documentation_is_the_event_that_is_meant(heading: str) -> None:
    """And the same event, with the same id, when it comes again."""
    by, messages = example(heading)
    events = [event for what in messages for event in translated(by, what).events]
    again = [event for what in messages for event in translated(by, what).events]
    for event, expected in zip(events, EXAMPLES[heading], strict=True):
        assert {name: getattr(event, name) for name in expected} == expected
    assert [event.id for event in events] == [event.id for event in again]
    assert "made-up" not in {event.id for event in events}


def test_a_message_of_too_many_events_is_cut_into_parts(tmp_path: Path) -> None:
    """By the commands of the page: a list, and JSON lines."""
    program("jq", "jq")
    of_list, of_lines = re.findall(r"^notifier dead-letters show .* ID \| (jq .*)$", PAGE, re.MULTILINE)
    events = [json.dumps({"n": number}) for number in range(12_000)]
    (tmp_path / "list").write_text(json.dumps({"raw": {"body": f"[{','.join(events)}]"}}))
    (tmp_path / "lines").write_text(json.dumps({"raw": {"body": "\n".join(events)}}))
    run = partial(subprocess.run, shell=True, cwd=tmp_path, capture_output=True, check=True)
    parts = [len(json.loads(line)) for line in run(f"cat list | {of_list}").stdout.splitlines()]
    run(f"cat lines | {of_lines}")
    cut = [path.read_text().count("\n") for path in sorted(tmp_path.glob("part-*"))]
    assert parts == cut == [5000, 5000, 2000]


def test_other_changes_at_debezium_end_nothing() -> None:
    """Tombstones, rows that are made or changed, other tables."""
    by, (deleted,) = example("Debezium")
    document = json.loads(deleted.body)
    others = [{**document, "op": "c"}, {**document, "source": {**document["source"], "table": "users"}}, b"", b"null"]
    assert [translated(by, message(other)).ignored for other in others] == [1, 1, 1, 1]
    late = {**document, "ts_us": document["ts_us"] + 1}
    assert translated(by, message(late)).events[0].id == translated(by, deleted).events[0].id
