"""The commands `notifier sources list` and `notifier sources try`."""

import json
import os
import sys
from base64 import b64decode
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer

from notifier.configuration.configured_feature import settings_model
from notifier.features.sources.source import Source
from notifier.features.sources.source_compiler import compile_sources
from notifier.features.sources.source_presets import SOURCE_PRESETS
from notifier.features.sources.source_settings import sources_of
from notifier.features.sources.source_trial import Trial, try_message
from notifier.model.errors import ConfigurationError, InputIssue
from notifier.model.message import Lane, Message
from notifier.model.moment import format_optional_moment, parse_moment
from notifier.model.printable import counted, json_text, printable
from notifier.model.session_ended import SessionEnded
from notifier.operators.terminal.command_options import Config, Json, quiet_logs
from notifier.operators.terminal.grid import Grid
from notifier.operators.terminal.help import command, command_group
from notifier.operators.terminal.output import say, say_json
from notifier.operators.terminal.screen import make_screen
from notifier.settings.config_file import load_settings
from notifier.settings.service_settings import Settings

_PROPERTIES = ("message_id", "timestamp", "user_id", "app_id", "content_type")

app = typer.Typer()


@command_group(app)
def _group() -> None:
    """List the sources of events and the presets, and try what a document of a source becomes.

    Examples:
        # what a recorded message becomes
        notifier sources try -c n.yaml duende message.json
        # which sources and presets there are
        notifier sources list -c n.yaml
    """


@command(app)
def list_(context: typer.Context, config: Config = None, as_json: Json = False) -> None:
    """List the sources of the configuration, and the presets that a source may name.

    A source is a server that publishes events in its own format. See docs/sources.md.

    Examples:
        # which sources and presets there are
        notifier sources list -c n.yaml
    """
    quiet_logs()
    settings = None if config is None else load_settings(config, os.environ, settings_model(context.obj))
    sources = [] if settings is None else _list_sources(settings)
    presets = [{"preset": name, "server": preset.server, "ids": preset.ids} for name, preset in SOURCE_PRESETS.items()]
    if as_json:
        say_json({"sources": sources, "presets": presets}, indent=2)
        return
    for row in sources:
        ways = [f"exchange {exchange}" for exchange in row["exchanges"]] + ["POST /v1/events/" + row["source"]] * row[
            "http"
        ]
        say(f"{row['source']}")
        say(f"  reads   {row['preset'] or 'by its own expressions'}")
        say(f"  issuer  {', '.join(row['issuers']) or 'as its documents name it'}")
        say(f"  from    {', '.join(ways) or 'nowhere: it has neither bind nor http'}")
    table = Grid("preset", "reads the events of")
    for preset in presets:
        table.add_row(preset["preset"], preset["server"].replace("`", ""))
    make_screen().print(table)


def _list_sources(settings: Settings) -> list[dict[str, Any]]:
    return [
        {
            "source": name,
            "preset": source.preset,
            "issuers": sorted({iss for iss in (source.issuer, *(source.issuers or {}).values()) if iss is not None}),
            "exchanges": [bind.exchange for bind in source.bind],
            "http": source.http is not None,
        }
        for name, source in sources_of(settings).items()
    ]


@command(app)
def try_(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The source, as it is named under sources.")],
    file: Annotated[Path, typer.Argument(allow_dash=True, help="The body of a message as it came; - is stdin.")] = Path(
        "-"
    ),
    config: Config = None,
    header: Annotated[
        list[str] | None,
        typer.Option("--header", metavar="'K: V'", help="A header that came with it; may be repeated."),
    ] = None,
    prop: Annotated[
        list[str] | None,
        typer.Option(
            "--property",
            metavar="K=V",
            help="An AMQP property: message_id, timestamp, user_id, app_id; may be repeated.",
        ),
    ] = None,
    content_type: Annotated[str | None, typer.Option("--content-type", help="Its content type.")] = None,
    as_json: Json = False,
) -> None:
    """Show what a document of a source becomes: the events in it, that it is ignored, or each mistake.

    It sends nothing, and needs no queue: a recorded document, and the configuration with the source. An event is shown
    with its sub and sid. The file may also be a dead letter, as `notifier dead-letters show --json` prints it.

    For a source with `http` and without `bind` it is checked as a post, except for its secret or signature. Without
    --content-type it is of a type that is taken.

    The exit status is 0 if all of it becomes events or is ignored, 1 if there is a mistake in it or a post of it is
    refused, and 2 if the source itself is wrong.

    Examples:
        # what a recorded message becomes
        notifier sources try -c n.yaml duende message.json
        # its AMQP properties
        notifier sources try -c n.yaml nsb body.json --header 'NServiceBus.MessageId: 7f2c'
        # a dead letter, after its source was corrected
        notifier dead-letters show -c n.yaml --json 6f1c… | notifier sources try -c n.yaml duende -
    """
    quiet_logs()
    settings = load_settings(config, os.environ, settings_model(context.obj))
    source, body = _load_source(settings, name), _read_content(file)
    letter = _parse_dead_letter(body)
    message = _create_message(name, letter or (body, {}, {}), header or (), prop or (), content_type)
    trial = try_message(settings, source, message, is_dead_letter=letter is not None)
    if as_json:
        shown = {"events": [_to_document(event) for event in trial.events], "ignored": trial.ignored}
        issues = {"mistakes": _to_json(trial.mistakes), "warnings": _to_json(trial.warnings)}
        say_json({"source": name, **shown, **issues}, indent=2)
    else:
        _print_trial(trial, "by `when`" if source.when is not None else "as a verification of the stream")
    raise typer.Exit(1 if trial.mistakes else 0)


def _to_json(mistakes: Iterable[InputIssue]) -> list[dict[str, str]]:
    return [{"path": mistake.path, "text": mistake.text} for mistake in mistakes]


def _load_source(settings: Settings, name: str) -> Source:
    if name not in sources_of(settings):
        near = get_close_matches(name.lower(), sources_of(settings), n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sources_of(settings)) or 'none'}"
        say(f"notifier: there is no source {name} in the configuration; {hint}", err=True)
        raise typer.Exit(2)
    sources, mistakes = compile_sources(settings, frozenset({"queue"}))  # which queue it is does not matter here
    if name not in sources:
        raise ConfigurationError([mistake for mistake in mistakes if mistake.path.startswith(f"sources.{name}.")])
    return sources[name]


def _create_message(
    name: str,
    came: tuple[bytes, dict[str, Any], dict[str, Any]],
    headers: Iterable[str],
    properties: Iterable[str],
    content_type: str | None,
) -> Message:
    body, of_headers, of_message = came
    for text in headers:
        key, colon, value = text.partition(":")
        if not colon or not key.strip():
            raise typer.BadParameter(f"{text!r} is not of the form 'name: value'", param_hint="--header")
        of_headers[key.strip()] = value.strip()
        if key.strip().lower() == "content-type":
            of_message["content_type"] = value.strip()
    for text in properties:
        key, equals, value = text.partition("=")
        if not equals or key not in _PROPERTIES:
            raise typer.BadParameter(
                f"{text!r} is not one of {', '.join(_PROPERTIES)}, with = and its value", param_hint="--property"
            )
        try:
            of_message[key] = parse_moment(value) if key == "timestamp" else value
        except ValueError:
            raise typer.BadParameter(
                f"{value} is not a moment like 2026-01-31T12:00:00Z", param_hint="--property"
            ) from None
    if content_type is not None:
        of_message["content_type"] = content_type
    return Message(lane=Lane.EVENTS, body=body, tag=None, source=name, headers=of_headers, **of_message)


def _parse_dead_letter(content: bytes) -> tuple[bytes, dict[str, Any], dict[str, Any]] | None:
    """Return body, headers and properties of the message in a dead letter; None if the file is not one."""
    try:
        letter = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(letter, dict) or not {"reason", "dead_since", "raw"} <= letter.keys():
        return None
    raw: Any = letter["raw"]
    if not isinstance(raw, dict) or not isinstance(body := raw.get("body"), str):
        return None
    properties = {key: raw.get(key) for key in ("message_id", "timestamp", "app_id", "content_type")}
    properties["user_id"] = letter.get("publisher")
    content = b64decode(body, validate=True) if raw.get("encoding") == "base64" else body.encode()
    return content, dict(raw.get("headers") or {}), properties


def _read_content(file: Path) -> bytes:
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
    moments = {"ended_at": event.ended_at, "not_after": event.not_after}
    document = {
        "id": event.id if event.id_given else None,
        "iss": event.iss,
        "sub": event.sub,
        "sid": event.sid,
        "clients": clients,
        **{key: format_optional_moment(at) for key, at in moments.items()},
        "reason": event.reason,
    }
    return {key: value for key, value in document.items() if value is not None}


def _to_entry(entry: Any) -> dict[str, Any]:
    names = (
        "client_id", "backchannel_logout_uri", "backchannel_logout_session_required", "id_token_signed_response_alg",
        "sub", "sid",
    )  # fmt: skip
    members = {key: value for key in names if (value := getattr(entry, key)) is not None}
    return members | ({"backchannel_logout_uri": None} if entry.no_address else {})


def _print_trial(trial: Trial, why: str) -> None:
    """Print the trial's result. `why`: what causes an event to be ignored."""
    events, ignored, mistakes = trial.events, trial.ignored, trial.mistakes
    for number, event in enumerate(events, 1):
        say(f"event {number} of {len(events)}" if len(events) > 1 else "event")
        document = _to_document(event)
        if not event.id_given:
            say("  id        none: a new one is made at each reading, so copies are not recognised")
        for key, value in document.items():
            clients = value if isinstance(value, str) else [_format_client(client) for client in value]
            say(printable(f"  {key:<9} {clients if isinstance(clients, str) else ', '.join(clients)}"))
    if ignored:
        say(f"{counted(ignored, 'event')} ignored, {why}" if events or mistakes or ignored > 1 else f"ignored, {why}")
    if not (events or ignored or mistakes or trial.warnings):
        say("no event: its list is empty, so the message is ignored")
    for warning in trial.warnings:
        say(f"warning: {warning}", err=True)
    if mistakes:
        fate = "be refused" if trial.refused else "become a dead letter"
        say(f"notifier: {counted(len(mistakes), 'mistake')}; it would {fate}", err=True)
        for mistake in mistakes:
            say(f"  {mistake}", err=True)


def _format_client(entry: Any) -> str:
    return entry if isinstance(entry, str) else json_text(entry)


try_.__name__ = "try"
