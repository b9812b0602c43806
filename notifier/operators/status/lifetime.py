"""Computes when a pending message expires, and whether its token has a `sid`, for lists and `notifier status`."""

from collections.abc import Callable

from notifier.delivery.verdict import CLIENT_CAUSES
from notifier.messages.replacements import MAX_GRACE_SECONDS
from notifier.model.ages import expires_at
from notifier.model.delivery import Delivery
from notifier.model.documents.documents import EventDocument
from notifier.model.logout_token import has_session
from notifier.model.outcome import Cause
from notifier.model.record import copy_record, record
from notifier.model.registry import Registry

_INTERNAL_CAUSES = frozenset(cause.value for cause in Cause if cause not in CLIENT_CAUSES)


@record
class Lifetime:
    """When a delivery or event expires, and whether the delivery's token has a `sid`.

    `expires` is the time in epoch seconds at which it is given up, if the reason of its wait lasts until then. A token
    without `sid` ends all sessions of the user, so its delivery has a shorter lifetime. `has_sid` is None for an event.
    """

    expires: float
    has_sid: bool | None


GetLifetime = Callable[[Delivery | EventDocument], Lifetime | None]
"""Returns the lifetime of a pending delivery or event; None if it is unknown."""


def lifetime_of(pending: Delivery | EventDocument, registry: Registry) -> Lifetime | None:
    """Return the lifetime of a delivery or event; None if no worker has received it yet.

    Also None for a delivery whose client became unknown after its last wait began, as its grace begins when that ends.
    """
    if isinstance(pending, EventDocument):
        grace = min(registry.grace, MAX_GRACE_SECONDS)
        return None if pending.unknown_since is None else Lifetime(expires=pending.unknown_since + grace, has_sid=None)
    progress, client = pending.progress, registry.client_of(pending)
    is_unknown, taken_at = client is None or client.logout_uri is None, progress.first_taken_at
    if taken_at is None or (is_unknown and progress.unknown_since is None):
        return None
    client = client or registry.default_of(pending.iss)
    if progress.deferred_for in _INTERNAL_CAUSES:  # further waits do not count as age either, up to `max_paused`
        pending = copy_record(pending, progress=copy_record(progress, uncounted_seconds=client.retry.max_paused))
    expires = expires_at(pending, client, taken_at + progress.waits.seconds)  # when the last wait ends, as measured
    if is_unknown and progress.unknown_since is not None:
        expires = min(expires, progress.unknown_since + registry.grace)
    return Lifetime(expires=max(expires, taken_at), has_sid=has_session(pending, client))
