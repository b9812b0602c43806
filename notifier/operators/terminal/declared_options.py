"""Gives a command an option for each member of a TypedDict, as a request over HTTP has it."""

import inspect
from collections.abc import Callable, Collection
from functools import wraps
from typing import Annotated, Any, Required, get_args, get_origin, get_type_hints

import typer
from annotated_types import Ge
from pydantic.fields import FieldInfo


def takes(members: type, *, without: Collection[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace the parameter `asked` of a command by an option for each member. `asked` then holds those given.

    The member `id` becomes the argument, a list an option that may be repeated, a bool a flag.
    """
    hints = get_type_hints(members, include_extras=True)
    options = [_option(name, *get_args(hint)) for name, hint in hints.items() if name not in without]

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


def _option(name: str, kind: Any, field: FieldInfo) -> inspect.Parameter:
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
