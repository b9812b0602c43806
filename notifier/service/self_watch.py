"""Watches the worker itself: the lag of its event loop, the expiry of certificates, and exposed secret files.

It also feeds the watchdog of systemd from the event loop, so that systemd restarts an unresponsive worker.
"""

import asyncio
import math
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from functools import partial

import structlog

from notifier.configuration.live_configuration import LiveConfiguration
from notifier.configuration.secret_files import ExposedFile, find_exposed_files, secrets_of
from notifier.model.errors import describe_error
from notifier.model.own_thread import run_in_thread
from notifier.network.listeners.certificates import find_presented_files, read_expiries
from notifier.settings.file_watch import find_hanging

INTERVAL_SECONDS = 0.5  # between two measurements of the lag
LAG_WINDOW_SECONDS = 15.0  # the usual scrape interval
FILES_INTERVAL_SECONDS = 60.0
FEEDS_PER_LIMIT = 4  # reports to systemd within its time limit


class LoopLag:
    """The worst lag of the last 15 to 30 s, so that each scrape covers the time since the previous one."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._worst = self._worst_before = 0.0

    def add(self, late: float, now: float) -> None:
        """Record a lag of `late` seconds, measured at `now`."""
        if now - self._since >= LAG_WINDOW_SECONDS:
            self._since, self._worst_before, self._worst = now, self._worst, 0.0
        self._worst = max(self._worst, late)

    @property
    def worst(self) -> float:
        """The worst lag, in seconds."""
        return max(self._worst, self._worst_before)


class Watchdog:
    """The watchdog of systemd (`WatchdogSec`, sd_notify(3)). Without the watchdog, `feed` does nothing."""

    def __init__(self, environ: Mapping[str, str], pid: int) -> None:
        limit_microseconds = environ.get("WATCHDOG_USEC", "")
        is_for_us = environ.get("WATCHDOG_PID") in (None, str(pid)) and limit_microseconds.isdecimal()
        # A name that begins with @ is in the abstract namespace.
        self._address = environ.get("NOTIFY_SOCKET", "").replace("@", "\0", 1) if is_for_us else ""
        self._interval = int(limit_microseconds) / 1e6 / FEEDS_PER_LIMIT if self._address else math.inf
        self._next_at = 0.0

    def feed(self, now: float) -> None:
        """Report to systemd that the event loop runs, if a report is due. Never raises.

        `now`: seconds of a monotonic clock.
        """
        if now < self._next_at or not self._address:
            return
        self._next_at = now + self._interval
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
            sender.sendto(b"WATCHDOG=1", self._address)


class SelfWatch:
    """Watches the lag of the event loop, certificates, and secret files.

    `certificates`: (use, file, epoch seconds of the expiry of notifier's certificate).
    """

    def __init__(self, live: LiveConfiguration) -> None:
        self._live = live
        self._lag = LoopLag(0.0)
        self.certificates: list[tuple[str, str, float]] = []
        self._exposed: list[ExposedFile] = []

    @property
    def loop_lag(self) -> float:
        """The worst recent lag, in seconds."""
        return self._lag.worst

    async def watch_loop(self) -> None:
        """Measure the lag of the event loop, and feed the watchdog of systemd, until cancelled."""
        loop = asyncio.get_running_loop()
        watchdog = Watchdog(os.environ, os.getpid())
        while True:
            wake_at = loop.time() + INTERVAL_SECONDS
            await asyncio.sleep(INTERVAL_SECONDS)
            now = loop.time()
            self._lag.add(now - wake_at, now)
            watchdog.feed(now)

    async def watch_files(self) -> None:
        """Read the expiry of certificates, and warn of exposed secret files, until cancelled."""
        while True:
            try:
                await self._examine_files()
            except Exception as error:  # noqa: BLE001  a file that cannot be examined must not end the worker
                structlog.get_logger().error("own_files_failed", error=describe_error(error))
            await asyncio.sleep(FILES_INTERVAL_SECONDS)

    async def _examine_files(self) -> None:
        current = self._live.current
        presented = find_presented_files(current.settings, current.registry)
        secrets = await run_in_thread(
            partial(secrets_of, current.settings, current.registry, current.parts), "own files"
        )
        hanging = {*await find_hanging([*presented.values(), *secrets.values()])}
        presented = {name: path for name, path in presented.items() if path not in hanging}
        secrets = {name: path for name, path in secrets.items() if path not in hanging}
        self.certificates = await run_in_thread(partial(read_expiries, presented.items()), "own files")
        self._warn_exposed(await run_in_thread(partial(find_exposed_files, secrets), "own files"))

    def _warn_exposed(self, secrets: list[ExposedFile]) -> None:
        """Warn of each exposed file once, and again if the file is exposed again after a correction."""
        for secret in secrets:
            if secret not in self._exposed:
                log = structlog.get_logger()
                log.warning("secret_file_exposed", setting=secret.setting, reason=secret.text, advice=secret.advice)
        self._exposed = secrets
