"""Checks the external keys of a worker, so that faults are reported and new key versions are used.

An external key is a signing key outside files, such as a key in an HSM or key service. Each key has a dedicated task,
so that an unresponsive signer does not delay the checks of others. The task closes the key when the configuration no
longer has it.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import structlog

from notifier.configuration.live_configuration import LiveConfiguration
from notifier.model.moment import wait_for_event
from notifier.model.shared_resources import shared_event
from notifier.model.trouble import Trouble, TroubleKind
from notifier.tokens.external_key import ExternalKey, SignerFault
from notifier.tokens.key_ring import KeyRing

FIRST_CHECK_SECONDS = 5.0  # a start waits at most so long: an unavailable HSM must not delay other issuers


class SignerWatch:
    """Checks the external keys of the current configuration. `run` checks until it is cancelled."""

    def __init__(
        self,
        live: LiveConfiguration,
        create_counters: Callable[[Iterable[str]], None],
        on_signing: Callable[[str, float], None],
    ) -> None:
        """`create_counters` creates the counters of these kinds of signers.

        `on_signing` is called when a key signs for the first time or again, with the key's issuer and the time when the
        key failed first (epoch seconds), or negative infinity at the first time.
        """
        self._live = live
        self._create_counters = create_counters
        self._on_signing = on_signing
        self._keys_changed = asyncio.Event()
        self._all_checked = shared_event()
        self._unchecked: set[ExternalKey] = set()
        self._expect_checks(self._keys())

    def follow(self) -> None:
        """Follow a new configuration: check new and faulty keys, and close removed keys."""
        keys = self._keys()
        self._live.signers.keep(keys)
        self._expect_checks(keys)
        for key in keys:
            key.check_soon()
        self._keys_changed.set()

    async def wait_for_checks(self) -> None:
        """Wait until each new or faulty key was checked, at most FIRST_CHECK_SECONDS."""
        await wait_for_event(self._all_checked, FIRST_CHECK_SECONDS)

    async def find_faulty_keys(self) -> Sequence[str]:
        """Check new and faulty keys, and return the keys that do not sign, each with the reason."""
        await self.wait_for_checks()
        return [f"{trouble.iss}: {trouble.text}" for trouble in self.troubles()]

    def troubles(self) -> Iterator[Trouble]:
        """Yield the keys that do not sign now, with the reasons."""
        ring = self._live.current.keys
        for iss, entry in ring.external_keys():
            name, fault = entry.external_key.name, entry.external_key.fault
            if fault is not None:
                text = f"key {name}: {fault.text}"
                yield Trouble(kind=TroubleKind.SIGNER, iss=iss, subject=name, text=text, since=fault.since)
        for duplicate in ring.duplicates():
            name = duplicate.key.external_key.name
            text = f"key {name}: {duplicate.text}"
            yield Trouble(kind=TroubleKind.SIGNER, iss=duplicate.iss, subject=name, text=text)

    async def run(self) -> None:
        """Check each key when it is due, until cancelled."""
        tasks: dict[ExternalKey, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                self._keys_changed.clear()
                keys = self._keys()
                for removed_key in tasks.keys() - keys:
                    tasks.pop(removed_key).cancel()
                for new_key in keys - tasks.keys():
                    tasks[new_key] = group.create_task(self._watch(new_key))
                await self._keys_changed.wait()

    def _keys(self) -> set[ExternalKey]:
        return {key.external_key for _, key in self._live.current.keys.external_keys()}

    def _expect_checks(self, keys: set[ExternalKey]) -> None:
        """Have `wait_for_checks` wait for the new and faulty keys among these."""
        self._create_counters(key.kind for key in keys)
        self._unchecked = {key for key in keys if key.half is None or key.fault is not None}
        if self._unchecked:
            self._all_checked.clear()
        else:
            self._all_checked.set()

    async def _watch(self, key: ExternalKey) -> None:
        """Check one key until cancelled, then close it."""
        key_changed = asyncio.Event()
        key.changed = key_changed.set
        logged_fault: SignerFault | None = None
        try:
            while True:
                if key.seconds_until_check(time.monotonic()) <= 0:
                    await self._check(key)
                logged_fault = log_fault_change(key, logged_fault)
                key_changed.clear()
                await wait_for_event(key_changed, key.seconds_until_check(time.monotonic()))
        finally:
            await key.close()

    async def _check(self, key: ExternalKey) -> None:
        old_half, old_fault = key.half, key.fault
        await key.check()
        if old_half is not key.half:
            _update_ring(self._live.current.keys)
        if key.fault is None and old_half is None:
            self._report_signing(key, float("-inf"))
        elif key.fault is None and old_fault is not None:
            self._report_signing(key, old_fault.since)
        self._unchecked.discard(key)
        if not self._unchecked:
            self._all_checked.set()

    def _report_signing(self, key: ExternalKey, since: float) -> None:
        """Report that the key signs, also at start, because an earlier worker may have deferred deliveries."""
        for iss in {iss for iss, entry in self._live.current.keys.external_keys() if entry.external_key is key}:
            self._on_signing(iss, since)


def _update_ring(ring: KeyRing) -> None:
    """Update the ring with the keys read so far, and log each key that duplicates another entry."""
    old_duplicates = ring.duplicates()
    ring.update()
    for duplicate in ring.duplicates():
        if duplicate not in old_duplicates:
            hint = "it does not sign; take one of the two entries out"
            structlog.get_logger().warning(
                "signer_failing", signer=duplicate.key.external_key.name, reason=duplicate.text, hint=hint,
                help="notifier explain NotifierSignerFailing",
            )  # fmt: skip


def log_fault_change(key: ExternalKey, logged: SignerFault | None) -> SignerFault | None:
    """Log a new fault or the recovery of the key, and return the current fault. `logged`: the last logged fault."""
    log, fault = structlog.get_logger(), key.fault
    if fault is not None and (logged is None or logged.text != fault.text):
        log.warning(
            "signer_failing", signer=key.name, reason=fault.text,
            hint="deliveries that it signs for wait; others go on", help="notifier explain NotifierSignerFailing",
        )  # fmt: skip
    elif fault is None and logged is not None:
        log.info("signer_well", signer=key.name, after=round(time.time() - logged.since, 1))
    return fault
