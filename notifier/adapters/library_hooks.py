"""Where this service rests on the inside of a library: each such hook is looked at once, before its first use.

`pyproject.toml` bounds every such library to the versions tried. Should another one come all the same, the look finds
what is not as it was, and the library's own way is taken: that costs speed, and never a logout. One line of the log
says so, and `notifier doctor`. The looks stand in `rabbitmq/insides.py` and `http_transport/insides.py`.
"""

import inspect
from collections.abc import Callable, Coroutine
from importlib.metadata import version
from typing import Any, TypeVar

import structlog

T = TypeVar("T")
ADVICE = "use the versions of deploy/requirements.txt, or a newer notifier"


class HookChanged(Exception):  # noqa: N818  a finding, not an error
    """The inside is not as it was; says what."""


def fits(hook: str, library: str, look: Callable[[], object]) -> bool:
    """Whether the hook can be used. `look` raises whatever it meets where the inside is another."""
    try:
        look()
    except Exception as error:  # noqa: BLE001  whatever it is: the library's own way is left
        why = str(error) if isinstance(error, HookChanged) else f"{type(error).__name__}: {error}"
        structlog.get_logger(__name__).warning(
            "library_hook_off", hook=hook, library=library, version=version(library), reason=why[:300], advice=ADVICE
        )
        return False
    return True


def expect(found: object, wanted: object, what: str) -> None:
    """Raises HookChanged where they differ."""
    if found != wanted:
        raise HookChanged(f"{what}: {found!r} instead of {wanted!r}")


def expect_use(of: object, *names: str) -> None:
    """Raises HookChanged where this function, or none of this class, names all of these."""
    functions = [of] if inspect.isfunction(of) else [each for each in vars(of).values() if inspect.isfunction(each)]
    found = [set(inspect.unwrap(each).__code__.co_names) for each in functions]
    if not any(used.issuperset(names) for used in found):
        raise HookChanged(f"{getattr(of, '__qualname__', of)} does not use {', '.join(names)} together")


def step(coroutine: Coroutine[Any, Any, T]) -> T:
    """What it returns. Raises HookChanged where it would wait."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        coroutine.close()
    raise HookChanged(f"{coroutine!r} waits")
