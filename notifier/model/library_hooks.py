"""Refuses a library whose insides are not as notifier uses them, once before the first use.

`pyproject.toml` allows each such library up to the newest version that was tried. A newer one can still be installed,
by `pip install --upgrade`, say. If its insides differ, a worker does not start, and says which version to install.
The examinations are in `queues/rabbitmq/wire/aiormq_hooks.py` and `network/http/aiohttp_hooks.py`.
"""

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any, TypeVar

from notifier.model.errors import ConfigurationError, Mistake

T = TypeVar("T")


class HookChanged(Exception):  # noqa: N818  a finding, not an error
    """The insides differ; the text says how."""


def demand(library: str, newest: str, examine: Callable[[], None]) -> None:
    """Raise ConfigurationError if `examine` raises anything. It gets a running loop, in a thread of its own.

    `newest`: the newest version that was tried.
    """

    async def in_loop() -> None:
        examine()

    try:
        with ThreadPoolExecutor(max_workers=1) as thread:  # here a loop may run already
            thread.submit(lambda: asyncio.run(in_loop())).result()
    except Exception as error:
        why = str(error) if isinstance(error, HookChanged) else f"{type(error).__name__}: {error}"
        differs = f"{version(library)} differs inside from the versions that this release was tried with"
        raise ConfigurationError([Mistake(library, f"{differs}; install {newest} ({why[:300]})")]) from error


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
