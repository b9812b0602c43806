"""Defines the problems of a worker other than failing clients: the first lines of `notifier status`.

A trouble is shown while it lasts, and logged once. `merge_troubles` combines the troubles of all workers.
"""

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Self

from notifier.model.moment import earliest
from notifier.model.outcome import Cause, DeadReason, Reason
from notifier.model.printable import counted
from notifier.model.record import copy_record, record


class TroubleKind(StrEnum):
    """The kinds, the most urgent first, each with its section of the runbook.

    A `mild` kind does not prevent any delivery now.
    """

    section: str
    mild: bool

    def __new__(cls, value: str, section: str, mild: bool = False) -> Self:  # noqa: FBT001, FBT002  given as a tuple
        """Return the kind of this name."""
        kind = str.__new__(cls, value)
        kind._value_, kind.section, kind.mild = value, section, mild
        return kind

    QUEUE = "queue", "NotifierQueueDisconnected"
    BLOCKED = "publishing_blocked", "NotifierPublishingBlocked"
    QUEUE_REFUSES = "queue_refuses", "NotifierQueueRefuses"
    SPOOL_FAILING = "spool_failing", "NotifierSpoolFailing"
    SPOOL_WAITING = "spool_waiting", "NotifierSpoolWaiting"
    EVENTS_REFUSED = "events_refused", "NotifierEventsRefused"
    PUBLISHER_REFUSED = "publisher_refused", "NotifierPublisherRefused"
    KEY_MISSING = "signing_key_missing", "NotifierSigningKeyNotPublished"
    RELOAD_FAILED = "reload_failed", "NotifierReloadFailed"
    RELOAD_REFUSED = "reload_refused", "NotifierReloadFailed"
    SOURCE_FAILED = "registry_source_failed", "NotifierRegistryStale"
    LOSS_HELD = "registry_loss_held", "NotifierRegistryLossHeld"
    SOURCE_DIFFERS = "registry_source_differs", "NotifierRegistryLossHeld"
    CLOCK = "clock_differs", "NotifierClockDiffers"
    UNKNOWN_ISSUER = "unknown_issuer", str(Cause.UNKNOWN)
    UNKNOWN_CLIENT = "unknown_client", str(Cause.UNKNOWN)
    UNKNOWN_VERSION = "unknown_version", str(Cause.UNKNOWN)
    SIGNER = "signer_failing", "NotifierSignerFailing"
    SIGNING = "signing", str(Cause.SIGNING)
    ENCRYPTION = "encryption", str(Cause.ENCRYPTION)
    TLS_FILES = "tls_files", str(Cause.TLS_FILES)
    PROXY = "proxy", str(Cause.PROXY)
    ORIGIN = "origin", str(Cause.ORIGIN)
    ACCESS_TOKEN = "access_token", str(Cause.ACCESS_TOKEN)
    OPEN_FILES = "open_files", str(Cause.OPEN_FILES)
    SESSION_ONLY = "session_only", str(DeadReason.SESSION_ONLY), True
    WEB_PAGE = "web_page", str(Reason.DELIVERED), True
    WORKER_VANISHED = "worker_vanished", "NotifierWorkerVanished", True
    JWKS_UNREAD = "jwks_unread", "NotifierSigningKeyNotPublished", True
    RESTART_NEEDED = "restart_needed", "NotifierRestartNeeded", True
    POLICY = "queue_policy", "NotifierQueuePolicy", True
    MEMBERS_IGNORED = "registry_source_beyond", "NotifierRegistryBeyond", True
    SOURCE_CHANGED = "registry_source_changed", "NotifierRegistryChanged", True


MAX_CLIENTS_PER_KIND = 5  # of one issuer, with a trouble each; more have one together
_NAMED_CLIENTS = 3  # in the text of such a trouble
_COUNTED: Mapping[str, tuple[str, str]] = {
    TroubleKind.EVENTS_REFUSED: ("event", "refused"),
    TroubleKind.PUBLISHER_REFUSED: ("request", "refused"),
    TroubleKind.UNKNOWN_ISSUER: ("message", "deferred"),
    TroubleKind.UNKNOWN_VERSION: ("message", "deferred"),
    TroubleKind.SESSION_ONLY: ("delivery", "skipped"),
}
_URGENCY = {kind.value: place for place, kind in enumerate(TroubleKind)}
_KINDS: Mapping[str, TroubleKind] = {kind.value: kind for kind in TroubleKind}


@record
class Trouble:
    """One problem. `since`: when it began, in epoch seconds.

    `kind` is a TroubleKind, or a kind of a later release. `iss` and `client_id` are the affected issuer and client, and
    empty if there are several; `subject` is the key, source, setting or reason. `count` deliveries, events or
    requests were deferred, refused or skipped because of it. If all workers together have fewer than `min_count`, it is
    none.
    """

    kind: str
    text: str
    since: float | None = None
    iss: str = ""
    client_id: str = ""
    subject: str = ""
    count: int = 0
    min_count: int = 0

    def format_count(self) -> str:
        """Return `count` with what was counted, and what happened to it: `5 deliveries deferred`."""
        noun, verb = _COUNTED.get(self.kind, ("delivery", "deferred"))
        return f"{counted(self.count, noun)} {verb}"

    @property
    def explained(self) -> str:
        """The name for `notifier explain`; empty if there is none."""
        return _KINDS[self.kind].section if self.kind in _KINDS else ""

    @property
    def mild(self) -> bool:
        """True if it does not prevent any delivery now."""
        return self.kind in _KINDS and _KINDS[self.kind].mild


@record
class SharedTrouble:
    """A trouble and the workers that have it."""

    trouble: Trouble
    workers: tuple[str, ...]


def merge_troubles(troubles: Iterable[tuple[str, Trouble]]) -> list[SharedTrouble]:
    """Combine the troubles of workers, each given with the worker's name. The most urgent come first."""
    by_key: dict[tuple[str, str, str, str], SharedTrouble] = {}
    for worker, trouble in troubles:
        key = (trouble.kind, trouble.iss, trouble.client_id, trouble.subject)
        if (shared := by_key.get(key)) is None:
            by_key[key] = SharedTrouble(trouble=trouble, workers=(worker,))
            continue
        since = earliest(shared.trouble.since, trouble.since)
        count = shared.trouble.count + trouble.count
        by_key[key] = SharedTrouble(
            trouble=copy_record(shared.trouble, since=since, count=count), workers=(*shared.workers, worker)
        )
    enough = [shared for shared in by_key.values() if shared.trouble.count >= shared.trouble.min_count]
    return sorted(_join_clients(enough), key=_urgency)


def _join_clients(troubles: Iterable[SharedTrouble]) -> Iterator[SharedTrouble]:
    """Yield the troubles, but one for all clients of an issuer if many have the same kind."""
    groups: dict[tuple[str, str, bool], list[SharedTrouble]] = {}
    for shared in troubles:
        groups.setdefault((shared.trouble.kind, shared.trouble.iss, bool(shared.trouble.client_id)), []).append(shared)
    for (_, _, has_client), group in groups.items():
        if not has_client or len(group) <= MAX_CLIENTS_PER_KIND:
            yield from group
            continue
        group.sort(key=_urgency)
        first, others = group[0].trouble, len(group) - _NAMED_CLIENTS
        names = ", ".join(shared.trouble.client_id for shared in group[:_NAMED_CLIENTS])
        trouble = copy_record(
            first,
            text=f"{first.text}; {len(group):,} clients: {names} and {others:,} more",
            since=earliest(*(shared.trouble.since for shared in group)),
            client_id="",
            count=sum(shared.trouble.count for shared in group),
        )
        workers = dict.fromkeys(worker for shared in group for worker in shared.workers)
        yield SharedTrouble(trouble=trouble, workers=tuple(workers))


def _urgency(shared: SharedTrouble) -> tuple[int, int, str, str, str]:
    trouble = shared.trouble
    return _URGENCY.get(trouble.kind, len(_URGENCY)), -trouble.count, trouble.iss, trouble.client_id, trouble.subject
