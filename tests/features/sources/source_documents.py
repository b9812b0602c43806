"""Sources as the configuration makes them, and recorded messages for them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from notifier.features.sources.source import Source
from notifier.features.sources.source_compiler import compile_sources
from notifier.features.sources.translation import Translation
from notifier.model.errors import InputIssue, MalformedEvent
from notifier.model.message import Lane, Message
from tests.settings.whole_settings import SETTINGS

RECORDED = Path(__file__).parents[2] / "recorded" / "sources"
ISS, DEMO = "https://id.example.com", "https://kc.example.com/realms/demo"
NOW = 1_800_000_000.0


def mistakes_of(**sources: Mapping[str, Any]) -> dict[str, str]:
    """Return the configuration errors of these sources, by path."""
    return {mistake.path: mistake.text for mistake in _compiled(sources)[1]}


def source(types: Any = None, **given: Any) -> Source:
    """The source `shop` with these settings. `types`: the CloudEvents types that end sessions at ISS."""
    sources, mistakes = _compiled({"shop": {"issuer": ISS} | given}, types)
    assert mistakes == []
    return sources["shop"]


def _compiled(
    sources: Mapping[str, Mapping[str, Any]], types: Sequence[str] | None = None
) -> tuple[Mapping[str, Source], list[InputIssue]]:
    issuers: dict[str, dict[str, object]] = {iss: {"keys": [{"file": __file__}]} for iss in (ISS, DEMO)}
    issuers[ISS]["event_types"] = types
    return compile_sources(SETTINGS.model_validate({"issuers": issuers, "sources": dict(sources)}))


def message(body: object, **more: Any) -> Message:
    """A message of the source `shop` with this body."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Message(lane=Lane.EVENTS, body=content, tag=None, source="shop", **more)


def recorded(path: Path) -> Message:
    """The recorded message."""
    document = json.loads(path.read_text())
    body = document["body"]
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    known = ("content_type", "message_id", "user_id", "app_id")
    properties = {name: document["properties"][name] for name in known if name in document["properties"]}
    return Message(lane=Lane.EVENTS, body=content, tag=None, source="shop", headers=document["headers"], **properties)


def translated(by: Source, what: Message, **more: Any) -> Translation:
    """What the message becomes."""
    return by.translate(by.strip_headers(what), max_bytes=131_072, new_id=lambda: "made-up", now=NOW, **more)


def refused(by: Source, what: Message) -> dict[str, str]:
    """Return the errors for which the message becomes a dead letter, by path."""
    try:
        found = translated(by, what)
    except MalformedEvent as malformed:
        return {mistake.path: mistake.text for mistake in malformed.mistakes}
    raise AssertionError(found)
