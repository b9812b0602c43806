"""Checks the external keys at start, periodically, and after a fault until the key signs again.

Each key has a dedicated task, so that an unresponsive signer does not delay the checks of others. The task closes the
key when the configuration no longer has it.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress

import structlog

from notifier.configuration.live_configuration import LiveConfiguration
from notifier.model.trouble import Trouble, TroubleKind
from notifier.tokens.external_key import ExternalKey, SignerFault
from notifier.tokens.key_ring import KeyRing

FIRST_CHECK_SECONDS = 5.0  # seconds that a start waits for the keys: an unavailable HSM must not delay other issuers


class SignerWatch:
    """Checks the external keys of the current configuration. `run` checks until it is cancelled."""

    def __init__(
        self, live: LiveConfiguration, begin: Callable[[Iterable[str]], None], can_sign: Callable[[str, float], None]
    ) -> None:
        """`begin` initializes the counters of these kinds of signers.

        `can_sign` is called when a key signs for the first time or again, with its issuer and the time since when it
        did not.
        """
        self._live = live
        self._begin = begin
        self._can_sign = can_sign
        self._changed = asyncio.Event()
        self._all_checked = asyncio.Event()
        self._unchecked: set[ExternalKey] = set()
        self._wait_for(self._keys())

    def follow(self) -> None:
        """Follow a new configuration: check new and faulty keys, and close removed keys."""
        keys = self._keys()
        self._live.signers.keep(keys)
        self._wait_for(keys)
        for key in keys:
            key.check_soon()
        self._changed.set()

    async def ready(self) -> None:
        """Wait until each new or faulty key was checked, at most FIRST_CHECK_SECONDS."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_CHECK_SECONDS):
                await self._all_checked.wait()

    async def find_faulty_keys(self) -> Sequence[str]:
        """Return the keys that do not sign with the reasons, after new and faulty keys were checked."""
        await self.ready()
        return [f"{trouble.iss}: {trouble.text}" for trouble in self.troubles()]

    def troubles(self) -> Iterator[Trouble]:
        """Yield the keys that do not sign now, with the reasons."""
        ring = self._live.current.keys
        for iss, key in ring.external_keys():
            if (fault := key.external_key.fault) is not None:
                text = f"key {key.external_key.name}: {fault.text}"
                yield Trouble(
                    kind=TroubleKind.SIGNER, iss=iss, subject=key.external_key.name, text=text, since=fault.since
                )
        for double in ring.duplicates():
            name = double.key.external_key.name
            yield Trouble(kind=TroubleKind.SIGNER, iss=double.iss, subject=name, text=f"key {name}: {double.text}")

    async def run(self) -> None:
        """Check each key when it is due, until cancelled."""
        tasks: dict[ExternalKey, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                keys = self._keys()
                for key in tasks.keys() - keys:
                    tasks.pop(key).cancel()
                for key in keys - tasks.keys():
                    tasks[key] = group.create_task(self._watch(key))
                await self._changed.wait()

    def _keys(self) -> set[ExternalKey]:
        return {key.external_key for _, key in self._live.current.keys.external_keys()}

    def _wait_for(self, keys: set[ExternalKey]) -> None:
        self._begin(key.kind for key in keys)
        self._unchecked = {key for key in keys if key.half is None or key.fault is not None}
        if self._unchecked:
            self._all_checked.clear()
        else:
            self._all_checked.set()

    async def _watch(self, key: ExternalKey) -> None:
        """Check one key until cancelled, then close it."""
        changed = asyncio.Event()
        key.changed = changed.set
        logged: SignerFault | None = None
        try:
            while True:
                if key.due(time.monotonic()) <= 0:
                    old_half, fault = key.half, key.fault
                    await key.check()
                    if old_half is not key.half:
                        _update_ring(self._live.current.keys)
                    if key.fault is None and (old_half is None or fault is not None):
                        self._report_signing(key, float("-inf") if old_half is None or fault is None else fault.since)
                    self._on_checked(key)
                logged = log_change(key, logged)
                changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(key.due(time.monotonic())):
                        await changed.wait()
        finally:
            await key.close()

    def _report_signing(self, key: ExternalKey, since: float) -> None:
        """Report that the key signs, also at start: an earlier worker may have deferred deliveries."""
        for iss in {iss for iss, signing in self._live.current.keys.external_keys() if signing.external_key is key}:
            self._can_sign(iss, since)

    def _on_checked(self, key: ExternalKey) -> None:
        self._unchecked.discard(key)
        if not self._unchecked:
            self._all_checked.set()


def _update_ring(ring: KeyRing) -> None:
    """Update the ring with the keys read so far, and log each key that duplicates another entry."""
    before = ring.duplicates()
    ring.update()
    for double in ring.duplicates():
        if double not in before:
            hint = "it does not sign; take one of the two entries out"
            structlog.get_logger().warning(
                "signer_failing", signer=double.key.external_key.name, reason=double.text, hint=hint,
                help="notifier explain NotifierSignerFailing",
            )  # fmt: skip


def log_change(key: ExternalKey, before: SignerFault | None) -> SignerFault | None:
    """Log the change since a fault or its absence, and return the current fault."""
    log, now = structlog.get_logger(), key.fault
    if now is not None and (before is None or before.text != now.text):
        hint = "deliveries that it signs for wait; others go on"
        log.warning(
            "signer_failing", signer=key.name, reason=now.text, hint=hint, help="notifier explain NotifierSignerFailing"
        )
    elif now is None and before is not None:
        log.info("signer_well", signer=key.name, after=round(time.time() - before.since, 1))
    return now
