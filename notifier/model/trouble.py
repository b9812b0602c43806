"""Defines what can be wrong at a worker, beside a client that fails: the lines with which `notifier status` begins.

A trouble is shown while it lasts; it is logged once. `merge_troubles` sums up the troubles of all workers.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType

from notifier.model.frozen import frozen, replace
from notifier.model.moment import earliest
from notifier.model.outcome import Cause


class TroubleKind(StrEnum):
    """The kinds, the most urgent first."""

    QUEUE = "queue"
    BLOCKED = "publishing_blocked"
    EVENTS_REFUSED = "events_refused"
    KEY_MISSING = "signing_key_missing"
    RELOAD_FAILED = "reload_failed"
    RELOAD_REFUSED = "reload_refused"
    SOURCE_FAILED = "registry_source_failed"
    CLOCK = "clock_differs"
    UNKNOWN_ISSUER = "unknown_issuer"
    UNKNOWN_CLIENT = "unknown_client"
    UNKNOWN_VERSION = "unknown_version"
    SIGNER = "signer_failing"
    SIGNING = "signing"
    ENCRYPTION = "encryption"
    TLS_FILES = "tls_files"
    PROXY = "proxy"
    ORIGIN = "origin"
    WORKER_VANISHED = "worker_vanished"
    JWKS_UNREAD = "jwks_unread"
    RESTART_NEEDED = "restart_needed"
    POLICY = "queue_policy"
    BEYOND = "registry_source_beyond"
    SOURCE_CHANGED = "registry_source_changed"


RUNBOOK_SECTIONS: Mapping[str, str] = MappingProxyType(
    {
        TroubleKind.QUEUE: "NotifierQueueDisconnected",
        TroubleKind.BLOCKED: "NotifierPublishingBlocked",
        TroubleKind.EVENTS_REFUSED: "NotifierEventsRefused",
        TroubleKind.KEY_MISSING: "NotifierSigningKeyNotPublished",
        TroubleKind.RELOAD_FAILED: "NotifierReloadFailed",
        TroubleKind.RELOAD_REFUSED: "NotifierReloadFailed",
        TroubleKind.SOURCE_FAILED: "NotifierRegistryStale",
        TroubleKind.CLOCK: "NotifierClockDiffers",
        TroubleKind.UNKNOWN_ISSUER: str(Cause.UNKNOWN),
        TroubleKind.UNKNOWN_CLIENT: str(Cause.UNKNOWN),
        TroubleKind.UNKNOWN_VERSION: str(Cause.UNKNOWN),
        TroubleKind.SIGNER: "NotifierSignerFailing",
        TroubleKind.SIGNING: str(Cause.SIGNING),
        TroubleKind.ENCRYPTION: str(Cause.ENCRYPTION),
        TroubleKind.TLS_FILES: str(Cause.TLS_FILES),
        TroubleKind.PROXY: str(Cause.PROXY),
        TroubleKind.ORIGIN: str(Cause.ORIGIN),
        TroubleKind.WORKER_VANISHED: "NotifierWorkerVanished",
        TroubleKind.JWKS_UNREAD: "NotifierSigningKeyNotPublished",
        TroubleKind.RESTART_NEEDED: "NotifierRestartNeeded",
        TroubleKind.POLICY: "NotifierQueuePolicy",
        TroubleKind.BEYOND: "NotifierRegistryBeyond",
        TroubleKind.SOURCE_CHANGED: "NotifierRegistryChanged",
    }
)
"""The section of the runbook for each kind."""

MILD_KINDS = frozenset(
    {
        TroubleKind.WORKER_VANISHED,
        TroubleKind.JWKS_UNREAD,
        TroubleKind.RESTART_NEEDED,
        TroubleKind.POLICY,
        TroubleKind.BEYOND,
        TroubleKind.SOURCE_CHANGED,
    }
)
"""Those that keep nothing from being delivered now."""

_URGENCY = {str(kind): place for place, kind in enumerate(TroubleKind)}


@frozen
class Trouble:
    """One thing that is wrong, since `since` (epoch seconds) if that is shared.

    `kind` is a TroubleKind, or one that a later release has. `iss` and `client_id` say whom it concerns, and are empty
    if it concerns more than one; `subject` is the key, source, setting or reason. `count` deliveries or events were put
    off for it, or refused.
    """

    kind: str
    text: str
    since: float | None = None
    iss: str = ""
    client_id: str = ""
    subject: str = ""
    count: int = 0

    @property
    def counted(self) -> str:
        """What `count` counts."""
        return "event" if self.kind == TroubleKind.EVENTS_REFUSED else "delivery"

    @property
    def explained(self) -> str:
        """The name for `notifier explain`; empty if there is none."""
        return RUNBOOK_SECTIONS.get(self.kind, "")


def join_by_cause(troubles: Iterable[Trouble]) -> list[Trouble]:
    """Join what a key that is missing in its issuer's JWK Set causes with that: it is one trouble, not two."""
    listed = list(troubles)

    def causes(key: Trouble, trouble: Trouble) -> bool:
        return (key.kind, trouble.kind, trouble.iss) == (
            TroubleKind.KEY_MISSING,
            TroubleKind.SIGNING,
            key.iss,
        ) and f"(kid {key.subject})" in trouble.text

    return [
        replace(trouble, count=trouble.count + sum(other.count for other in listed if causes(trouble, other)))
        for trouble in listed
        if not any(causes(other, trouble) for other in listed)
    ]


@frozen
class SharedTrouble:
    """A trouble and the workers that have it."""

    trouble: Trouble
    workers: tuple[str, ...]


def merge_troubles(troubles: Iterable[tuple[str, Trouble]]) -> list[SharedTrouble]:
    """Sum up the troubles of workers, each given with the worker's name. The most urgent come first."""
    by_key: dict[tuple[str, str, str, str], SharedTrouble] = {}
    for worker, trouble in troubles:
        key = (trouble.kind, trouble.iss, trouble.client_id, trouble.subject)
        shared = by_key.get(key)
        if shared is None:
            by_key[key] = SharedTrouble(trouble=trouble, workers=(worker,))
            continue
        since = earliest(shared.trouble.since, trouble.since)
        count = shared.trouble.count + trouble.count
        by_key[key] = SharedTrouble(
            trouble=replace(shared.trouble, since=since, count=count), workers=(*shared.workers, worker)
        )
    return sorted(by_key.values(), key=_urgency)


def _urgency(shared: SharedTrouble) -> tuple[int, int, str, str, str]:
    trouble = shared.trouble
    return _URGENCY.get(trouble.kind, len(_URGENCY)), -trouble.count, trouble.iss, trouble.client_id, trouble.subject
