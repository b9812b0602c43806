"""Resolves host names by aiodns within the caller's deadline, with the name servers that resolv.conf lists now.

c-ares queries one name server after another. Its timeouts depend on earlier responses: after fast responses 0.25 s,
doubled at each of three tries, and a response to an earlier try is dropped. A name server that needs 3 s would
therefore fail after 1.4 s. If no response has arrived within HEDGE_DELAY_SECONDS, each name server is also queried on a
separate patient channel, which waits 5 s at its first try. The first response is used, and the other queries are
cancelled. A dead name server thus costs HEDGE_DELAY_SECONDS.

c-ares reads resolv.conf when a channel is made. Later it watches only the folder of that name, not that of a link's
target. New channels are made when the file has changed, and after no name server was reachable.
"""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
from aiodns.error import ARES_ECONNREFUSED, ARES_ENODATA, ARES_ENOTFOUND, ARES_ETIMEOUT
from aiohttp.abc import AbstractResolver, ResolveResult
from pycares import AresError

RESOLV_CONF = Path("/etc/resolv.conf")
HEDGE_DELAY_SECONDS = 0.5
FIRST_WAIT_SECONDS = 5.0  # the maximum of c-ares
MAX_TRIES = 4  # the waits double, so that all tries together exceed any deadline
RENEW_INTERVAL_SECONDS = 10.0  # between two renewals while no server is reachable, since each channel has a thread
CLOSE_DELAY_SECONDS = 120.0  # longer than any caller waits on the old channels
_FINAL_CODES = (ARES_ENOTFOUND, ARES_ENODATA)
_UNREACHABLE_CODES = (ARES_ECONNREFUSED, ARES_ETIMEOUT)


class NameResolver(AbstractResolver):
    """Resolves names. It must be closed. `path` is that of resolv.conf."""

    def __init__(self, path: Path = RESOLV_CONF) -> None:
        self._path = path
        self._channels: _Channels | None = None
        self._old: list[_Channels] = []
        self._doubted = False

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host. Raises OSError, whose cause is a DNSError."""
        channels = await self._current_channels()
        queries = {asyncio.ensure_future(channels.shared.resolve(host, port, family))}
        is_hedged = False
        try:
            while True:
                done, queries = await asyncio.wait(
                    queries, timeout=None if is_hedged else HEDGE_DELAY_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                errors = [error for query in done if (error := query.exception()) is not None]
                for query in done:
                    if query.exception() is None:
                        return query.result()
                is_late = not errors or _error_code(errors[0]) == ARES_ETIMEOUT
                if is_late and not is_hedged:
                    patient = channels.patient()
                    queries |= {asyncio.ensure_future(channel.resolve(host, port, family)) for channel in patient}
                    is_hedged = True
                if errors and (not queries or _error_code(errors[0]) in _FINAL_CODES):
                    raise errors[0]  # noqa: TRY301  handled below as other errors
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) or _error_code(error) in _UNREACHABLE_CODES:
                self._doubted = True  # renew the channels: the name servers may have changed
            raise
        finally:
            for query in queries:
                query.cancel()

    async def close(self) -> None:
        """Close the channels."""
        for channels in (*self._old, *([] if self._channels is None else [self._channels])):
            await channels.close()
        self._channels, self._old = None, []

    async def _current_channels(self) -> "_Channels":
        """Return the channels. Make new ones if resolv.conf has changed, or after no name server was reachable."""
        now, state = time.monotonic(), _read_state(self._path)
        channels = self._channels
        if channels is not None:
            must_renew = self._doubted and now - channels.made_at >= RENEW_INTERVAL_SECONDS
            if channels.state == state and not must_renew:
                return channels
            self._old.append(channels)
        channels = self._channels = _Channels(self._path, state, now)
        self._doubted = False
        while self._old and now - self._old[0].made_at >= CLOSE_DELAY_SECONDS:
            await self._old.pop(0).close()
        return channels


class _Channels:
    """The channels of one state of resolv.conf."""

    def __init__(self, path: Path, state: object, made_at: float) -> None:
        self.state, self.made_at = state, made_at
        self._servers = list(dict.fromkeys(_read_servers(path)))
        self.shared = _make_channel(self._servers) or aiohttp.AsyncResolver(nameservers=None)  # not the shared one
        self._patient: list[aiohttp.AsyncResolver] | None = None

    def patient(self) -> list[aiohttp.AsyncResolver]:
        """Return a channel for each name server, with long timeouts."""
        if self._patient is None:
            made = (_make_channel([server], timeout=FIRST_WAIT_SECONDS, tries=MAX_TRIES) for server in self._servers)
            self._patient = [channel for channel in made if channel is not None]
        return self._patient

    async def close(self) -> None:
        """Cancel all pending queries."""
        for each in (self.shared, *(self._patient or ())):
            await each.close()


def _make_channel(servers: list[str], **options: Any) -> aiohttp.AsyncResolver | None:
    """Return a channel for these name servers; None if there are none, or c-ares cannot read one of them."""
    try:
        return aiohttp.AsyncResolver(nameservers=servers, **options) if servers else None
    except AresError:
        return None


def _read_state(path: Path) -> object:
    """Return the identity of the file's state, which differs after a change; None if the file does not exist."""
    try:
        status = os.stat(path)  # noqa: PTH116  one call
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def _read_servers(path: Path) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for line in path.read_text(encoding="ascii", errors="replace").splitlines():
            match line.split():
                case ["nameserver", server, *_]:
                    yield server


def _error_code(error: BaseException) -> object:
    """Return the error code of c-ares, None for another error."""
    cause = error.__cause__
    return cause.args[0] if cause is not None and cause.args else None
