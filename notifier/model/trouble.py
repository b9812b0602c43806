"""Defines the problems of a worker other than failing clients: the first lines of `notifier status`.

A trouble is shown while it lasts, and logged once. `merge_troubles` combines the troubles of all workers.
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
"""Kinds that do not prevent any delivery now."""

_URGENCY = {str(kind): place for place, kind in enumerate(TroubleKind)}


@frozen
class Trouble:
    """One problem, since `since` (epoch seconds) if that is shared.

    `kind` is a TroubleKind, or a kind of a later release. `iss` and `client_id` are the affected issuer and client, and
    empty if there are several; `subject` is the key, source, setting or reason. `count` deliveries or events were
    deferred or refused because of it.
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
        """The noun for `count`."""
        return "event" if self.kind == TroubleKind.EVENTS_REFUSED else "delivery"

    @property
    def explained(self) -> str:
        """The name for `notifier explain`; empty if there is none."""
        return RUNBOOK_SECTIONS.get(self.kind, "")


def join_by_cause(troubles: Iterable[Trouble]) -> list[Trouble]:
    """Merge the consequences of a key that is missing in its issuer's JWK Set into that trouble: it is one problem."""
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
    """Combine the troubles of workers, each given with the worker's name. The most urgent come first."""
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
