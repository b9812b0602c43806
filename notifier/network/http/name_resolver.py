"""Resolves host names by aiodns within the caller's deadline, with the name servers that resolv.conf lists now.

c-ares queries one name server after another. Its timeouts depend on earlier responses: after fast responses 0.25 s,
doubled at each of three tries, and a response to an earlier try is dropped. A name server that needs 3 s would
therefore fail after 1.4 s. If no response has arrived within HEDGE_DELAY_SECONDS, each name server is also queried on a
separate patient channel, which waits 5 s at its first try. The first response is used, and the other queries are
cancelled. A dead name server thus costs HEDGE_DELAY_SECONDS.

The patient channels do not use EDNS, as glibc. Of the answers of name servers that refuse EDNS, c-ares repeats the
query only after a FORMERR without EDNS. After the others (SERVFAIL, REFUSED, NOTIMP), the patient channels are queried
at once.

The search domains of resolv.conf are applied here, since c-ares ends at a domain that fails (SERVFAIL, REFUSED), and
since `ndots:5` of a pod puts all domains before a name such as `rp.example.com`. A name with a dot is looked up as it
is first, and in the search domains after that has failed. `shop.ns` in a cluster without access to the internet may
need seconds to fail, so that its search begins after HEDGE_DELAY_SECONDS if `ndots` prefers the search. A name without
a dot is looked up in the search domains first.

A lookup ends 15 s after its first query on patient channels. aiohttp has later attempts for the same host wait for a
lookup that runs, even if name servers are reachable again.

c-ares reads resolv.conf when a channel is made. Later it watches only the folder of that name, not that of a link's
target. New channels are made when the file has changed, and after no name server was reachable: that may be due to
single names whose server is silent, so these renewals become rarer. A channel keeps each answer until its TTL ends, for
up to an hour, and has 65,536 identifiers of queries. So new channels are also made after MAX_NAMES different names.
Queries of other callers continue on the previous channels, which the last of them closes.
"""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp
from aiodns.error import ARES_ECONNREFUSED, ARES_ENODATA, ARES_ENOTFOUND, ARES_ETIMEOUT
from aiohttp.abc import AbstractResolver, ResolveResult
from pycares import ARES_FLAG_EDNS, ARES_FLAG_NOSEARCH, AresError

from notifier.model.shared_resources import shared_bound

RESOLV_CONF = Path("/etc/resolv.conf")
HEDGE_DELAY_SECONDS = 0.5
FIRST_WAIT_SECONDS = 5.0  # the maximum of c-ares
MAX_TRIES = 2  # the second wait is twice as long
RENEW_INTERVAL_SECONDS = 10.0  # from a renewal to the next while no server is reachable, since the cache is lost
MAX_RENEW_INTERVAL_SECONDS = 80.0
MAX_NAMES = shared_bound(10_000)  # 1.2 KB each
MAX_SEARCH_DOMAINS = 32  # as of a pod in Kubernetes; a name that fails in each costs queries for each
MAX_NDOTS = 15  # as glibc
_FINAL_CODES = (ARES_ENOTFOUND, ARES_ENODATA)
_UNREACHABLE_CODES = (ARES_ECONNREFUSED, ARES_ETIMEOUT)

_Query: TypeAlias = Awaitable[list[ResolveResult]]


@dataclass(frozen=True, slots=True)
class _Settings:
    """What resolv.conf sets. A name with fewer dots than `ndots` is looked up in the search `domains` first."""

    servers: tuple[str, ...]
    domains: tuple[str, ...]
    ndots: int


class NameResolver(AbstractResolver):
    """Resolves names. It must be closed. `path` is that of resolv.conf."""

    def __init__(self, path: Path = RESOLV_CONF, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._channels: _Channels | None = None
        self._replaced: set[_Channels] = set()  # with running queries
        self._doubted = False
        self._renew_interval = RENEW_INTERVAL_SECONDS

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host. Raises OSError, whose cause is a DNSError."""
        channels = await self._enter_channels(host)
        try:
            found = await channels.find(host, port, family)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) or _error_code(error) in _UNREACHABLE_CODES:
                self._doubted = True  # renew the channels: the name servers may have changed
            raise
        finally:
            channels.callers -= 1
            if not channels.callers and channels in self._replaced:
                self._replaced.remove(channels)
                await channels.close()
        for address in found:
            address["hostname"] = host  # not the name in a search domain: TLS uses it
        return found

    async def close(self) -> None:
        """Close the channels."""
        open_channels, self._channels, self._replaced = [*self._replaced, self._channels], None, set()
        for channels in open_channels:
            if channels is not None:
                await channels.close()

    async def _enter_channels(self, host: str) -> "_Channels":
        """Return the channels with one caller more. Make new ones if they are outdated, in doubt or full."""
        now, state, former = self._clock(), _read_state(self._path), self._channels
        channels = former if former is not None and former.state == state else None
        if channels is not None and self._doubted and now - channels.made_at >= self._renew_interval:
            is_recent = now - channels.made_at < 2 * self._renew_interval
            interval = 2 * self._renew_interval if is_recent else RENEW_INTERVAL_SECONDS
            self._renew_interval = min(interval, MAX_RENEW_INTERVAL_SECONDS)
            channels = None
        if channels is None or not channels.add_name(host):
            channels = self._channels = _Channels(self._path, state, now)
            channels.add_name(host)
            self._doubted = False
        channels.callers += 1
        if former is not channels and former is not None:
            if former.callers:
                self._replaced.add(former)
            else:
                await former.close()
        return channels


class _Channels:
    """The channels of one state of resolv.conf."""

    def __init__(self, path: Path, state: object, made_at: float) -> None:
        self.state, self.made_at, self.callers = state, made_at, 0
        self._names: set[str] = set()
        self._settings = settings = _read_settings(path)
        options = {"flags": ARES_FLAG_NOSEARCH | ARES_FLAG_EDNS}
        self._shared = _make_channel(settings.servers, **options) or aiohttp.AsyncResolver(**options)
        self._patient: list[aiohttp.AsyncResolver] | None = None
        self._files: aiohttp.AsyncResolver | None = None

    def add_name(self, host: str) -> bool:
        """Record a name that is looked up. Return False if there are MAX_NAMES others."""
        if host not in self._names and len(self._names) >= MAX_NAMES:
            return False
        self._names.add(host)
        return True

    async def find(self, host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
        """Return the addresses of a host, by itself or in a search domain."""

        async def search(*names: str) -> list[ResolveResult]:
            for name in names[:-1]:
                try:
                    return await self._query(name, port, family)
                except OSError as error:
                    if _error_code(error) in _UNREACHABLE_CODES:
                        raise
            return await self._query(names[-1], port, family)

        dots, ndots = host.count("."), self._settings.ndots
        names = [] if host.endswith(".") else [f"{host}.{domain}" for domain in self._settings.domains]
        if dots < min(ndots, 1):
            self._files = self._files or aiohttp.AsyncResolver(lookups="f")
            with contextlib.suppress(OSError):
                return await self._files.resolve(host, port, family)
            return await search(*names, host)
        delay = HEDGE_DELAY_SECONDS if dots < ndots else None
        return await _race(
            self._query(host, port, family),
            delay,
            lambda: [search(*names)] if names else [],
            _UNREACHABLE_CODES,
        )

    async def _query(self, name: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
        return await _race(
            self._shared.resolve(name, port, family),
            HEDGE_DELAY_SECONDS,
            lambda: [channel.resolve(name, port, family) for channel in self._patient_channels()],
            _FINAL_CODES,
        )

    def _patient_channels(self) -> list[aiohttp.AsyncResolver]:
        """Return a channel for each name server, with long timeouts and without EDNS."""
        if self._patient is None:
            options = {"flags": ARES_FLAG_NOSEARCH, "timeout": FIRST_WAIT_SECONDS, "tries": MAX_TRIES}
            made = (_make_channel([server], **options) for server in self._settings.servers)
            self._patient = [channel for channel in made if channel is not None]
        return self._patient

    async def close(self) -> None:
        """Cancel all pending queries. They do not continue on patient channels, which nothing would close."""
        patient, self._patient = self._patient or [], []
        for each in (self._shared, self._files, *patient):
            if each is not None:
                await each.close()


async def _race(
    first: _Query, delay: float | None, others: Callable[[], list[_Query]], final_codes: tuple[object, ...] = ()
) -> list[ResolveResult]:
    """Return the first result. The `others` begin after `first` has failed, or after `delay` seconds.

    Raises an error of `final_codes` at once, otherwise that of `first` at the end.
    """
    leader = asyncio.ensure_future(first)
    running, has_begun = {leader}, False
    try:
        while running:
            done, running = await asyncio.wait(
                running, timeout=None if has_begun else delay, return_when=asyncio.FIRST_COMPLETED
            )
            for query in sorted(done, key=lambda each: each.exception() is not None):  # results before errors
                error = query.exception()
                if error is None or _error_code(error) in final_codes:
                    return query.result()
            if not has_begun:
                running |= {asyncio.ensure_future(other) for other in others()}
                has_begun = True
        return leader.result()
    finally:
        for query in running:
            query.cancel()


def _make_channel(servers: Sequence[str], **options: Any) -> aiohttp.AsyncResolver | None:
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


def _read_settings(path: Path) -> _Settings:
    """Read resolv.conf, and the variables of resolv.conf(5). Servers and domains that are not ASCII are left out."""
    lines, servers, ndots = [], [], 1
    domains = [socket.gethostname().partition(".")[2]]
    with contextlib.suppress(OSError):
        lines = path.read_text(encoding="ascii", errors="surrogateescape").splitlines()
    variables = (f"search {os.environ.get('LOCALDOMAIN', '')}", f"options {os.environ.get('RES_OPTIONS', '')}")
    for line in (*lines, *variables):
        match line.split():
            case ["nameserver", server, *_]:
                servers.append(server)
            case ["search", *named] | ["domain", *named] if named:
                domains = named
            case ["options", *options]:
                numbers = [option.removeprefix("ndots:") for option in options if option.startswith("ndots:")]
                dots = [min(float(number), MAX_NDOTS) for number in numbers if number.isdecimal()]
                ndots = int(dots[-1]) if dots else ndots
    kept = (domain.strip(".") for domain in domains if domain.isascii())
    searched = tuple(dict.fromkeys(domain for domain in kept if domain))[:MAX_SEARCH_DOMAINS]
    return _Settings(tuple(dict.fromkeys(filter(str.isascii, servers))), searched, ndots)


def _error_code(error: BaseException) -> object:
    """Return the error code of c-ares, None for another error."""
    cause = error.__cause__
    return cause.args[0] if cause is not None and cause.args else None
