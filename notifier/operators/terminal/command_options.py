"""What several commands share: options, quiet logs, and loading the configuration.

`takes` gives a command an option for each member of a TypedDict, as a request over HTTP has it.
"""

import inspect
import os
from collections.abc import Callable, Collection, Sequence
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Required, get_args, get_origin, get_type_hints

import typer
from annotated_types import Ge

from notifier.model.errors import ConfigurationError, InputIssue
from notifier.operators.terminal.output import say_json

if TYPE_CHECKING:  # a command that runs at once loads none of these
    from pydantic.fields import FieldInfo

    from notifier.configuration.clients.clients_file import AnswerOf
    from notifier.configuration.configured_feature import ConfiguredFeature
    from notifier.configuration.loading import LoadedConfiguration
    from notifier.tokens.key_ring import KeyRing


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
    from notifier.telemetry import log_output

    level = os.environ.get("NOTIFIER_LOG__LEVEL", "")
    log_output.configure(level if level in ("debug", "info", "warning", "error") else lowest)


def load_configuration(
    config: Path | None,
    features: "Sequence[ConfiguredFeature]",
    *,
    as_json: bool,
    answer_of: "AnswerOf",
    starting: bool = False,
    keep_rows: bool = False,
    also: Callable[[], Sequence[InputIssue]] = tuple,
) -> "LoadedConfiguration":
    """Load all that a worker loads. Raises ConfigurationError; with `as_json` it prints the mistakes and exits.

    `also`: gives further mistakes, once all is read.
    """
    from notifier.configuration.loading import load

    try:
        return load(config, os.environ, features, starting=starting, answer_of=answer_of, keep_rows=keep_rows)
    except ConfigurationError as error:
        exit_with_issues([*error.mistakes, *also()], as_json=as_json)


def check_keys(ring: "KeyRing") -> list[InputIssue]:
    """Check each external key of the ring once, and close it. Return the issues."""
    if not any(ring.external_keys()):
        return []
    import uvloop

    async def look() -> list[InputIssue]:
        try:
            return await ring.check()
        finally:
            await ring.close()

    return uvloop.run(look())


def exit_with_issues(mistakes: Sequence[InputIssue], *, as_json: bool) -> NoReturn:
    """Raise ConfigurationError; with `as_json` print the mistakes and exit."""
    if not as_json:
        raise ConfigurationError(mistakes)
    documents = [{"path": mistake.path, "text": mistake.text} for mistake in mistakes]
    say_json({"mistakes": documents}, indent=2)
    raise typer.Exit(2)


def takes(members: type, *, without: Collection[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace the parameter `asked` of a command by an option for each member. `asked` then holds those given.

    The member `id` becomes the argument, a list an option that may be repeated, a bool a flag.
    """
    hints = get_type_hints(members, include_extras=True)
    options = [_make_option(name, *get_args(hint)) for name, hint in hints.items() if name not in without]

    def declare(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def run(**given: Any) -> None:
            asked = {option.name: given.pop(option.name) for option in options}
            function(asked={name: value for name, value in asked.items() if value}, **given)

        own = inspect.signature(function)
        parameters = [each for one in own.parameters.values() for each in (options if one.name == "asked" else [one])]
        run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return declare


def _make_option(name: str, kind: Any, field: "FieldInfo") -> inspect.Parameter:
    option = f"--{name.replace('_', '-')}"
    least: Any = next((each.ge for each in field.metadata if isinstance(each, Ge)), None)
    default: object = None
    how: Any = typer.Option(option, min=least, help=field.description)
    if name == "id":
        kind, how = list[str] | None, typer.Argument(metavar="ID", help=field.description)
    elif kind is bool:
        how, default = typer.Option(option, help=field.description), False
    elif get_origin(kind) is Required:
        (kind,), default = get_args(kind), inspect.Parameter.empty
    else:  # `read_conditions` checks the names in a list, and lists those that exist
        kind = (list[str] if get_origin(kind) is list else kind) | None
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, how])
