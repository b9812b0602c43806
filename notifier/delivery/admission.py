"""Decides which deliveries need no attempt: they have expired, or their client is unknown or paused. Pure.

`DeliveryPipeline` calls `verdict_without_attempt` first, and `Scheduler.admit` for all other deliveries.
"""

from notifier.delivery.verdict import Dead, Defer
from notifier.model.ages import describe_attempts, describe_expiry, fault_wait_seconds, is_too_old, remaining_grace
from notifier.model.client import Client
from notifier.model.delivery import Delivery
from notifier.model.outcome import Cause, DeadReason
from notifier.model.pauses import Pause
from notifier.model.registry import Registry

PAUSED_SECONDS = 512.0  # until a paused delivery is admitted again: a power of two; it does not count as age
NO_SUCH_CLIENT = "the registry has no such client (yet)"
NO_ADDRESS = "the registry has no address for this client any more"
_IGNORED = ", and the address that its event brings does not count (registry.inline)"
UNKNOWN_TEXTS = frozenset({NO_SUCH_CLIENT, NO_ADDRESS, NO_SUCH_CLIENT + _IGNORED, NO_ADDRESS + _IGNORED})


def verdict_without_attempt(
    delivery: Delivery,
    client: Client | None,
    client_or_default: Client,
    registry: Registry,
    now: float,
    pause: Pause | None = None,
) -> Defer | Dead | None:
    """Return the verdict on a delivery that needs no attempt; None if the delivery is to be attempted.

    `client` is None if it is unknown. `client_or_default` is then the issuer's default client, which has the ages.
    `pause`: by which an operator has paused the client.
    """
    if delivery.not_after is not None and now > delivery.not_after:
        text = f"{describe_attempts(delivery, now)}: not_after has passed, the session ran out at the client by itself"
        return Dead(reason=DeadReason.EXPIRED, text=text)
    if delivery.progress.first_taken_at is not None and is_too_old(delivery, client_or_default, now):
        return Dead(reason=DeadReason.EXPIRED, text=describe_expiry(delivery, client_or_default, now))
    if client is None or client.logout_uri is None:
        return _judge_unknown_client(delivery, NO_SUCH_CLIENT if client is None else NO_ADDRESS, registry, now)
    if pause is not None or client.paused:
        text = "the registry has paused: true" if pause is None else pause.text
        return Defer(due=now + PAUSED_SECONDS, cause=Cause.PAUSED, text=text)
    return None


def _judge_unknown_client(delivery: Delivery, problem: str, registry: Registry, now: float) -> Defer | Dead:
    """Return a deferral while the client may still become known, for `registry.grace` in all; then a dead letter.

    `problem`: NO_SUCH_CLIENT or NO_ADDRESS. The grace begins when a worker first found no address for the delivery.
    """
    denied = registry.inline == "deny"  # addresses in events do not count
    inline = delivery.ignored or (delivery.inline if denied else None)
    has_ignored_uri = inline is not None and inline.backchannel_logout_uri is not None
    unknown_since = delivery.progress.unknown_since
    deferrals = 0 if unknown_since is None else delivery.progress.deferrals  # without deferrals for other causes
    if (time_left := remaining_grace(unknown_since, deferrals, registry.grace, now)) > 0:
        wait = min(time_left, fault_wait_seconds(deferrals))
        return Defer(due=now + wait, cause=Cause.UNKNOWN, text=problem + _IGNORED if has_ignored_uri else problem)
    if delivery.iss not in registry.issuers:
        text = f"{delivery.iss} is not one of `issuers`; add it, then replay"
        return Dead(reason=DeadReason.UNKNOWN_ISSUER, text=text)
    text = _describe_unknown_client(
        delivery, lost_address=problem == NO_ADDRESS, has_ignored_uri=has_ignored_uri, denied=denied
    )
    return Dead(reason=DeadReason.UNKNOWN_CLIENT, text=text)


def _describe_unknown_client(delivery: Delivery, *, lost_address: bool, has_ignored_uri: bool, denied: bool) -> str:
    """Return why the client has no address, and the remedy.

    `lost_address`: the client is registered without an address. `has_ignored_uri`: the event has a URI that does not
    count. `denied`: no URI of an event counts (`registry.inline: deny`).
    """
    name = f"client {delivery.client_id!r}"
    why = f"the registry has no {name} of this issuer that can be used"
    remedy, reports = "register the client", "whether it was left out, and why"
    if lost_address:
        why = f"the address of the {name} is gone: the registry has none for it any more"
        remedy, reports = "register its address", "where its registration comes from"
    if not has_ignored_uri:
        return f"{why}, and the event has no URI; `notifier clients show` reports {reports}; {remedy}, then replay"
    why = f"{why}, and the event's URI does not count"
    if denied:
        return f"{why}, since registry.inline is deny; {remedy}, then replay"
    publisher = f"it is {delivery.publisher!a}"
    if delivery.publisher is None:
        publisher = "it has neither a user_id nor, over HTTP, an API token"
    return (
        f"{why}: its publisher is not known to be the identity server ({publisher}; registry.inline). Name the "
        f'publisher in issuers["{delivery.iss}"].publishers, or {remedy}; then replay'
    )
