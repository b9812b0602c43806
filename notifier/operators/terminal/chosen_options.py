"""Gives several commands the same options, which choose what they are about, as one parameter of their functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any

_FILTERS = {"LetterFilter": object, "WaitingFilter": object}
"""The types of `chosen`, which modules of commands import for type checking alone."""


def with_chosen(
    command: Callable[..., None], options: Mapping[str, Any], read: Callable[[Mapping[str, Any]], object]
) -> Callable[..., None]:
    """Give a command these options (annotations by name). Its parameter `chosen` is what `read` makes of them."""

    @wraps(command)
    def run(**given: Any) -> None:
        chosen = read({name: given.pop(name) for name in options})
        command(chosen=chosen, **given)

    parameters: list[Parameter] = []
    for parameter in signature(command, eval_str=True, locals=_FILTERS).parameters.values():
        if parameter.name == "chosen":
            parameters += [
                Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=hint) for name, hint in options.items()
            ]
        else:
            parameters.append(parameter.replace(kind=Parameter.KEYWORD_ONLY))
    # typer reads a command's options from these two
    vars(run)["__signature__"] = Signature(parameters)
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
