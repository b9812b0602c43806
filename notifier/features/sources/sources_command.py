"""The command `notifier sources try`: show which events a recorded message of a source becomes."""

import json
import os
import sys
import time
from base64 import b64decode
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from notifier.configuration.configured_feature import settings_model
from notifier.features.sources.post_rules import SET_TYPE
from notifier.features.sources.source import Source
from notifier.features.sources.source_compiler import compile_sources
from notifier.features.sources.source_settings import sources_of
from notifier.features.sources.translation import Translation
from notifier.model.defaults import MAX_EVENT
from notifier.model.documents.event_members import EntryDocument, EventBody
from notifier.model.errors import ConfigurationError, InputIssue, MalformedEvent
from notifier.model.message import Lane, Message
from notifier.model.moment import format_optional_moment
from notifier.model.printable import counted
from notifier.model.session_ended import SessionEnded
from notifier.operators.terminal.command_options import Config, Json, quiet_logs
from notifier.operators.terminal.help import command, command_group
from notifier.operators.terminal.output import say, say_json
from notifier.publishing.event_remarks import remark_members
from notifier.settings.config_file import load_settings
from notifier.settings.service_settings import Settings

app = typer.Typer()


@command_group(app)
def _group() -> None:
    """Try what a document of a source becomes.

    Examples:
        # what a recorded message becomes
        notifier sources try -c n.yaml duende message.json
    """


@command(app)
def try_(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The source, as it is named under sources.")],
    file: Annotated[Path, typer.Argument(allow_dash=True, help="The body of a message as it came; - is stdin.")] = Path(
        "-"
    ),
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show what a document of a source becomes: the events in it, that it is ignored, or each mistake.

    It sends nothing, and needs no queue: a recorded document, and the configuration with the source. An event is shown
    with its sub, sid and email. The file may also be a dead letter with headers and properties, as
    `notifier dead-letters show --json` prints it. The proof and the content type of a post are not checked.

    The exit status is 0 if all of it becomes events or is ignored, 1 if there is a mistake in it, and 2 if the source
    itself is wrong.

    Examples:
        # what a recorded message becomes
        notifier sources try -c n.yaml duende message.json
        # a dead letter, after its source was corrected
        notifier dead-letters show -c n.yaml --json 6f1c… | notifier sources try -c n.yaml duende -
    """
    quiet_logs()
    settings = load_settings(config, os.environ, settings_model(context.obj))
    source = _load_source(settings, name)
    message = source.strip_headers(_create_message(settings, name, _read_content(file)))
    translation, mistakes = Translation(), tuple[InputIssue, ...]()
    try:
        translation = source.translate(
            message, max_bytes=MAX_EVENT, new_id=lambda: "", now=time.time(), max_events=sys.maxsize
        )
        mistakes = () if translation.wrong is None else translation.wrong.mistakes
    except MalformedEvent as malformed:
        mistakes = malformed.mistakes
    events = [_to_document(event) for event in translation.events]
    warnings = list(_find_warnings(name, translation))
    if as_json:
        issues = {"mistakes": _to_json(mistakes), "warnings": _to_json(warnings)}
        say_json({"source": name, "events": events, "ignored": translation.ignored, **issues}, indent=2)
    else:
        for event in events:
            say_json(event, indent=2)
        if translation.ignored or not (events or mistakes):
            cause = "by `when`" if source.when is not None else "as a verification of the stream"
            say(f"{counted(translation.ignored, 'event')} ignored, {cause}")
        for warning in warnings:
            say(f"warning: {warning}", err=True)
        if mistakes:
            say(f"notifier: {counted(len(mistakes), 'mistake')}; it would become a dead letter", err=True)
        for mistake in mistakes:
            say(f"  {mistake}", err=True)
    raise typer.Exit(1 if mistakes else 0)


def _find_warnings(name: str, translation: Translation) -> Iterator[InputIssue]:
    """Yield a warning for ids that a later event could have, and for members that notifier does not read."""
    if any(event.id in translation.timeless_ids for event in translation.events):
        text = "is a digest without a time: another message with the same content counts as a copy; read ended_at or id"
        yield InputIssue(f"sources.{name}.event.id", text)
    for remark in dict.fromkeys(remark for event in translation.events for remark in remark_members(event)):
        yield InputIssue(f"sources.{name}.event", remark)


def _to_json(mistakes: Iterable[InputIssue]) -> list[dict[str, str]]:
    return [{"path": mistake.path, "text": mistake.text} for mistake in mistakes]


def _load_source(settings: Settings, name: str) -> Source:
    """Return the compiled source. Raises typer.Exit for an unknown name, and ConfigurationError for its errors."""
    if name not in sources_of(settings):
        say(f"notifier: there is no source {name}; there are {', '.join(sources_of(settings)) or 'none'}", err=True)
        raise typer.Exit(2)
    sources, mistakes = compile_sources(settings, frozenset({"queue"}))  # without checks that depend on the queue
    if name not in sources:
        raise ConfigurationError([mistake for mistake in mistakes if mistake.path.startswith(f"sources.{name}.")])
    return sources[name]


def _create_message(settings: Settings, name: str, content: bytes) -> Message:
    """Return a message with the body `content`, or if that is a dead letter, the message in it."""
    http, properties = sources_of(settings)[name].http, dict[str, Any]()
    body, headers = content, dict[str, Any]()
    letter = _parse_dead_letter(content)
    if letter is not None:
        raw: dict[str, Any] = letter["raw"]
        body = b64decode(raw["body"], validate=True) if raw.get("encoding") == "base64" else raw["body"].encode()
        headers = dict(raw.get("headers") or {})
        properties = {key: raw.get(key) for key in ("message_id", "timestamp", "app_id", "content_type")}
        properties["user_id"] = letter.get("publisher")
    elif http is not None and http.set is not None and body.lstrip()[:1] != b"{":
        properties["content_type"] = SET_TYPE
    return Message(lane=Lane.EVENTS, body=body, tag=None, source=name, headers=headers, **properties)


def _parse_dead_letter(content: bytes) -> dict[str, Any] | None:
    """Return the dead letter of a message that could not be read; None if the content is anything else."""
    try:
        letter = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(letter, dict) or not {"reason", "dead_since", "raw"} <= letter.keys():
        return None
    raw = letter["raw"]
    return letter if isinstance(raw, dict) and isinstance(raw.get("body"), str) else None


def _read_content(file: Path) -> bytes:
    """Return the content of the file, or of stdin for `-`. Raises typer.BadParameter."""
    if file == Path("-"):
        if sys.stdin.isatty():
            say("Type a document as JSON, then Ctrl-D.", err=True)
        return sys.stdin.buffer.read()
    try:
        return file.read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be read: {error.strerror}", param_hint="FILE") from None


def _to_document(event: SessionEnded) -> dict[str, Any]:
    """Return the event in notifier's form."""
    clients: Any = event.clients
    if clients != "*":
        clients = [entry if isinstance(entry, str) else _to_entry(entry) for entry in clients]
    given = {
        "id": event.id if event.id_given else None,
        "clients": clients,
        "ended_at": format_optional_moment(event.ended_at),
        "not_after": format_optional_moment(event.not_after),
    }
    document = {name: given.get(name, getattr(event, name)) for name in EventBody.__annotations__}
    return {name: value for name, value in document.items() if value is not None}


def _to_entry(entry: Any) -> dict[str, Any]:
    """Return an entry of `clients` with its members that are set."""
    values = {name: getattr(entry, name) for name in EntryDocument.__annotations__}
    members = {name: value for name, value in values.items() if value is not None}
    if entry.no_address:
        members["backchannel_logout_uri"] = None
    return members


try_.__name__ = "try"
