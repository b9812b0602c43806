"""Examines internals of libraries before notifier uses them. A *hook* is a use of internals that is faster.

If the examination of a hook fails, the public API is used instead, and the log, the doctor and a metric show it. If
there is no public API for a required behaviour, the worker does not start, and reports the versions that work. The
examinations are in `queues/rabbitmq/wire/aiormq_hooks.py` and `network/http/aiohttp_hooks.py`.
"""

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from importlib.metadata import version
from typing import Any, TypeVar

from notifier.model.errors import ConfigurationError, InputIssue
from notifier.model.record import record
from notifier.model.shared_resources import start_thread

T = TypeVar("T")


class HookChanged(Exception):  # noqa: N818  a finding, not an error
    """The internals differ; the text describes the difference."""


@record
class Hook:
    """A faster alternative to a library's public API.

    `tried`: the versions with which the hook works. `cost`: the cost of the public API. `difference`: how the internals
    differ from the expected ones; None while the hook is in use.
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
    """Run `examine` in an event loop of another thread. Return the text of its error; None if it raises none."""

    differences: list[str] = []

    async def examine_in_loop() -> None:
        try:
            examine()
        except HookChanged as error:
            differences.append(str(error)[:300])
        except Exception as error:  # noqa: BLE001  whatever an unknown version raises
            differences.append(f"{type(error).__name__}: {error}"[:300])

    # The present thread may have a running loop.
    start_thread("examine a library", lambda: asyncio.run(examine_in_loop())).join()
    return next(iter(differences), None)


def require_behaviour(library: str, tried: str, examine: Callable[[], None]) -> None:
    """Raise ConfigurationError if `examine` raises any error. `tried`: the versions that work."""
    if (difference := find_difference(examine)) is not None:
        text = f"{version(library)} has other internals than notifier needs; install one of {tried} ({difference})"
        raise ConfigurationError([InputIssue(library, text)])


def expect(actual: object, wanted: object, what: str) -> None:
    """Raise HookChanged if the two differ."""
    if actual != wanted:
        raise HookChanged(f"{what}: {actual!r} instead of {wanted!r}")


def expect_use(user: object, *names: str) -> None:
    """Raise HookChanged unless the function `user`, or one method of the class `user`, uses all these names."""
    members = [user] if inspect.isfunction(user) else vars(user).values()
    names_used = [set(inspect.unwrap(member).__code__.co_names) for member in members if inspect.isfunction(member)]
    if not any(used.issuperset(names) for used in names_used):
        raise HookChanged(f"{getattr(user, '__qualname__', user)} does not use {', '.join(names)} together")


def step(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run the coroutine without an event loop, and return its result. Raises HookChanged if it waits."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        coroutine.close()
    raise HookChanged(f"{coroutine!r} waits")
