"""Checks that the insides of a library are as we use them, once before the first use.

`pyproject.toml` bounds each such library to the versions tried. If another version comes and its insides differ, the
library's public way is taken instead. That costs speed and never a logout. The log says so once, and so does
`notifier doctor`. The checks are in `queues/rabbitmq/insides.py` and `http/aiohttp_hooks.py`.
"""

import inspect
from collections.abc import Callable, Coroutine
from importlib.metadata import version
from typing import Any, TypeVar

import structlog

T = TypeVar("T")
ADVICE = "use the versions of deploy/requirements.txt, or a newer notifier"


class HookChanged(Exception):  # noqa: N818  a finding, not an error
    """The insides differ; the text says how."""


def fits(hook: str, library: str, look: Callable[[], object]) -> bool:
    """Return True if the hook can be used. `look` raises anything if the insides differ."""
    try:
        look()
    except Exception as error:  # noqa: BLE001  whatever it is, the library's public way remains
        why = str(error) if isinstance(error, HookChanged) else f"{type(error).__name__}: {error}"
        structlog.get_logger(__name__).warning(
            "library_hook_off", hook=hook, library=library, version=version(library), reason=why[:300], advice=ADVICE
        )
        return False
    return True


def expect(found: object, wanted: object, what: str) -> None:
    """Raise HookChanged if they differ."""
    if found != wanted:
        raise HookChanged(f"{what}: {found!r} instead of {wanted!r}")


def expect_use(of: object, *names: str) -> None:
    """Raise HookChanged if this function, or no function of this class, uses all these names."""
    functions = [of] if inspect.isfunction(of) else [each for each in vars(of).values() if inspect.isfunction(each)]
    found = [set(inspect.unwrap(each).__code__.co_names) for each in functions]
    if not any(used.issuperset(names) for used in found):
        raise HookChanged(f"{getattr(of, '__qualname__', of)} does not use {', '.join(names)} together")


def step(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what the coroutine returns. Raises HookChanged if it would wait."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        coroutine.close()
    raise HookChanged(f"{coroutine!r} waits")
