"""What several commands share: options, quiet logs, and loading the configuration."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from notifier.model.errors import ConfigurationError, Mistake
from notifier.operators.terminal.output import say_json

if TYPE_CHECKING:
    from notifier.configuration.clients.clients_file import AnswerOf
    from notifier.configuration.configured_feature import ConfiguredFeature
    from notifier.configuration.loading import Loaded
    from notifier.tokens.key_ring import KeyRing

from enum import StrEnum


class EventLane(StrEnum):
    """The lanes that take events from publishers."""

    EVENTS = "events"
    BULK = "bulk"


Config = Annotated[
    Path | None,
    typer.Option(
        "-c",
        "--config",
        envvar="NOTIFIER_CONFIG",
        exists=True,
        dir_okay=False,
        help="The configuration file, YAML or JSON. Without it, NOTIFIER_… variables are read.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def quiet_logs(lowest: str = "critical") -> None:
    """Log from this level on, unless NOTIFIER_LOG__LEVEL asks for another: the command's own output is the answer."""
    from notifier.telemetry import logs

    level = os.environ.get("NOTIFIER_LOG__LEVEL", "")
    logs.configure(level if level in ("debug", "info", "warning", "error") else lowest)


def load_whole(
    config: Path | None,
    features: "Sequence[ConfiguredFeature]",
    *,
    as_json: bool,
    answer_of: "AnswerOf",
    starting: bool = False,
    keep_rows: bool = False,
    also: Callable[[], Sequence[Mistake]] = tuple,
) -> "Loaded":
    """Load all that a worker loads. Raises ConfigurationError; with `as_json` it prints the mistakes and exits.

    `also`: gives further mistakes, once all is read.
    """
    from notifier.configuration.loading import load

    try:
        return load(config, os.environ, features, starting=starting, answer_of=answer_of, keep_rows=keep_rows)
    except ConfigurationError as error:
        refuse([*error.mistakes, *also()], as_json=as_json)


def look_at_keys(ring: "KeyRing") -> list[Mistake]:
    """Look once at each key of the ring that is in a place of its own, and close it. Return what is wrong."""
    if not any(ring.elsewhere()):
        return []
    import uvloop

    async def look() -> list[Mistake]:
        try:
            return await ring.look()
        finally:
            await ring.close()

    return uvloop.run(look())


def refuse(mistakes: Sequence[Mistake], *, as_json: bool) -> NoReturn:
    """Raise ConfigurationError; with `as_json` print the mistakes and exit."""
    if not as_json:
        raise ConfigurationError(mistakes)
    documents = [{"path": mistake.path, "text": mistake.text} for mistake in mistakes]
    say_json({"mistakes": documents}, indent=2)
    raise typer.Exit(2)
