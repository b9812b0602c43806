"""Provides what several commands share: options, quiet logs, and loading the configuration.

`takes` derives the options of a command from the TypedDict that also declares the members of the API request.
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

if TYPE_CHECKING:  # these imports are slow, and most commands do not need them
    from pydantic.fields import FieldInfo

    from notifier.configuration.clients.clients_file import AnswerOf
    from notifier.configuration.configured_feature import ConfiguredFeature
    from notifier.configuration.loading import FindMore, LoadedConfiguration
    from notifier.tokens.key_ring import KeyRing


class EventLane(StrEnum):
    """The lanes (queues) to which publishers may send events."""

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
    """Log only from the level `lowest` on, unless NOTIFIER_LOG__LEVEL names another level."""
    from notifier.telemetry import log_output

    level = os.environ.get("NOTIFIER_LOG__LEVEL", "")
    log_output.configure(level if level in ("debug", "info", "warning", "error") else lowest)


def load_configuration(
    config: Path | None,
    features: "Sequence[ConfiguredFeature]",
    *,
    as_json: bool,
    answer_of: "AnswerOf",
    keep_rows: bool = False,
    find_more: "FindMore | None" = None,
) -> "LoadedConfiguration":
    """Load the configuration as a worker does.

    `answer_of` returns the clients of a registry source that is not a file. `keep_rows`: keep the rows of the sources,
    even if no source is read again. `find_more`: further checks. Raises ConfigurationError for all mistakes. With
    `as_json`, prints the mistakes and exits instead.
    """
    from notifier.configuration.loading import load

    try:
        return load(config, os.environ, features, answer_of=answer_of, keep_rows=keep_rows, find_more=find_more)
    except ConfigurationError as error:
        exit_with_issues(error.mistakes, as_json=as_json)


def check_keys(ring: "KeyRing") -> list[InputIssue]:
    """Let each external key (in an HSM or key service) sign once, and close the ring. Return the issues."""
    if not any(ring.external_keys()):
        return []
    import uvloop

    async def check_and_close() -> list[InputIssue]:
        try:
            return await ring.check()
        finally:
            await ring.close()

    return uvloop.run(check_and_close())


def exit_with_issues(mistakes: Sequence[InputIssue], *, as_json: bool) -> NoReturn:
    """Raise ConfigurationError with the mistakes. With `as_json`, print them and exit with 2 instead."""
    if not as_json:
        raise ConfigurationError(mistakes)
    documents = [{"path": mistake.path, "text": mistake.text} for mistake in mistakes]
    say_json({"mistakes": documents}, indent=2)
    raise typer.Exit(2)


def takes(members: type, *, without: Collection[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that replaces the parameter `members` of a command by an option for each member of the type.

    The command receives the given options as the dictionary `members`. A member `id` becomes the argument of the
    command, a list an option that may be repeated, and a bool a flag. Members in `without` get no option. A name of
    Python's keywords ends with `_`, which the option lacks.
    """
    hints = get_type_hints(members, include_extras=True)
    options = [_make_option(name, *get_args(hint)) for name, hint in hints.items() if name not in without]

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def run(**arguments: Any) -> None:
            values = {option.name: arguments.pop(option.name) for option in options}
            given = {name: value for name, value in values.items() if value or type(value) is int}  # 0 is a condition
            function(members=given, **arguments)

        signature = inspect.signature(function)
        parameters: list[inspect.Parameter] = []
        for parameter in signature.parameters.values():
            parameters += options if parameter.name == "members" else [parameter]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _make_option(name: str, value_type: Any, field: "FieldInfo") -> inspect.Parameter:
    """Return the command's parameter, with typer's annotation, for a member of this name, type and description."""
    option = f"--{name.rstrip('_').replace('_', '-')}"
    minimum: Any = next((limit.ge for limit in field.metadata if isinstance(limit, Ge)), None)
    default: object = None
    declaration: Any = typer.Option(option, min=minimum, help=field.description)
    if name == "id":
        value_type, declaration = list[str] | None, typer.Argument(metavar="ID", help=field.description)
    elif value_type is bool:
        declaration, default = typer.Option(option, help=field.description), False
    elif get_origin(value_type) is Required:
        (value_type,), default = get_args(value_type), inspect.Parameter.empty
    elif get_origin(value_type) is list:  # `read_conditions` checks the values, and its error lists the valid ones
        value_type = list[str] | None
    else:
        value_type = value_type | None
    annotation = Annotated[value_type, declaration]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
