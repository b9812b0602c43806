"""Examines the internals of libraries that notifier uses, once before the first use.

If a hook has a public alternative, it is only faster: if its examination fails, the public API is used, and the log,
the doctor and a metric show it. Without an alternative, the library must behave as expected: otherwise a worker does
not start, and reports the versions that work. The examinations are in `queues/rabbitmq/wire/aiormq_hooks.py` and
`network/http/aiohttp_hooks.py`.
"""

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any, TypeVar

from notifier.model.errors import ConfigurationError, InputIssue
from notifier.model.frozen import frozen

T = TypeVar("T")


class HookChanged(Exception):  # noqa: N818  a finding, not an error
    """The internals differ; the text describes the difference."""


@frozen
class Hook:
    """A faster alternative to a library's public API.

    `tried`: the versions with which the hook works. `cost`: the cost of the public API. `difference` from the expected
    internals is None while the hook is in use.
    """

    name: str
    library: str
    tried: str
    cost: str
    difference: str | None

    @property
    def reason(self) -> str:
        """The reason why the hook is off, with the installed version and the versions that work."""
        return f"{self.library} {version(self.library)} has other internals than {self.tried} ({self.difference})"


def find_difference(examine: Callable[[], None]) -> str | None:
    """Return the text of what `examine` raises; None if it returns. It runs in an event loop in a separate thread."""

    async def in_loop() -> None:
        examine()

    try:
        with ThreadPoolExecutor(max_workers=1) as thread:  # this thread may have a running loop
            thread.submit(lambda: asyncio.run(in_loop())).result()
    except Exception as error:  # noqa: BLE001  whatever an unknown version raises
        return (str(error) if isinstance(error, HookChanged) else f"{type(error).__name__}: {error}")[:300]
    return None


def require_behaviour(library: str, tried: str, examine: Callable[[], None]) -> None:
    """Raise ConfigurationError if `examine` raises anything. `tried`: the versions that work."""
    if (found := find_difference(examine)) is not None:
        text = f"{version(library)} has other internals than notifier needs; install one of {tried} ({found})"
        raise ConfigurationError([InputIssue(library, text)])


def expect(actual: object, wanted: object, what: str) -> None:
    """Raise HookChanged if the two differ."""
    if actual != wanted:
        raise HookChanged(f"{what}: {actual!r} instead of {wanted!r}")


def expect_use(of: object, *names: str) -> None:
    """Raise HookChanged if this function, or no function of this class, uses all these names."""
    members = [of] if inspect.isfunction(of) else vars(of).values()
    used = [set(inspect.unwrap(member).__code__.co_names) for member in members if inspect.isfunction(member)]
    if not any(of_one.issuperset(names) for of_one in used):
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
