"""Converts the status of the service to JSON, for `GET /v1/status` and `notifier status --json`."""

from collections.abc import Callable
from dataclasses import fields

from notifier.delivery.admission import NO_ADDRESS, NO_SUCH_CLIENT
from notifier.model.message import DEAD, PARKED
from notifier.model.moment import format_moment, format_optional_moment
from notifier.model.trouble import SharedTrouble, TroubleKind
from notifier.operators.status.client_status import ClientStatus
from notifier.operators.status.service_status import (
    RelayState,
    ServiceStatus,
    WorkerState,
    consumed_queues_of,
    count_delayed,
    count_held_messages,
    count_set_aside,
    missing_bindings_of,
    rates_of,
    relays_of,
    seen_keys_of,
    troubles_of,
)
from notifier.tokens.first_day import SeenKey

CIRCUIT_STATES = ("closed", "half-open", "open")
EXPIRY_MEMBERS = ("expires_with_sid", "expires_without_sid")
_CLIENT_MEMBERS = tuple(member.name for member in fields(ClientStatus))


def document_of(status: ServiceStatus, permits: Callable[[str], bool] | None = None) -> dict[str, object]:
    """Return the JSON of the status. If `permits` is given, only issuers for which it returns True are shown.

    Names and texts that do not belong to a single issuer are then omitted, since they may name other issuers.
    """
    whole = permits is None
    permits = permits or (lambda _iss: True)
    queues: dict[str, object] = {
        queue: {
            "ready": status.depths[queue].ready,
            "held": count_held_messages(status, queue),
            "set_aside": count_set_aside(status, queue),
            "oldest": format_optional_moment(status.oldest.get(queue)),
        }
        for queue in consumed_queues_of(status)
    }
    if status.depths:  # otherwise unknown
        queues["delayed"] = {"ready": count_delayed(status)}
    if PARKED in status.depths:
        queues["parked"] = {"ready": status.depths[PARKED].ready}
    if DEAD in status.depths:
        queues["dead"] = {"ready": status.depths[DEAD].ready, "oldest": format_optional_moment(status.oldest.get(DEAD))}
    return {
        "at": format_moment(status.at),
        "queues": queues,
        "rates": rates_of(status),
        "workers": {
            "seen": status.seen,
            "answered": len(status.workers),
            "each": [_worker_document(worker, whole=whole) for worker in status.workers],
        },
        "clients": [client_document(client) for client in status.clients if permits(client.iss)],
        "clients_left_out": status.left_out if whole else None,
        "bindings_missing": [binding.row() for binding in missing_bindings_of(status)],
        "keys": [_key_document(key) for (iss, _), key in sorted(seen_keys_of(status).items()) if permits(iss)],
        "relays": [_relay_document(relay) for relay in relays_of(status) if permits(relay.iss)],
        "troubles": [
            _trouble_document(shared, whole=whole)
            for shared in troubles_of(status)
            if not shared.trouble.iss or permits(shared.trouble.iss)
        ],
    }


def _key_document(key: SeenKey) -> dict[str, object]:
    """Return a published key. `appeared` is False if the key was already published at the first check."""
    return {
        "iss": key.iss,
        "kid": key.kid,
        "published_since": format_optional_moment(key.since),
        "appeared": key.appeared,
    }


def _relay_document(relay: RelayState) -> dict[str, object]:
    last_token = format_optional_moment(relay.last_token)
    return {"relay": relay.relay, "iss": relay.iss, "keys": relay.keys, "last_token": last_token}


def _trouble_document(shared: SharedTrouble, *, whole: bool) -> dict[str, object]:
    """Return a trouble. Unless `whole`, omit the texts that may name other issuers.

    These are the names and text of a trouble without issuer, and the hint for an unknown client.
    """
    trouble, text = shared.trouble, shared.trouble.text
    if not whole and trouble.kind == TroubleKind.UNKNOWN_CLIENT:
        text = NO_ADDRESS if text.startswith(NO_ADDRESS) else NO_SUCH_CLIENT
    has_names = whole or bool(trouble.iss)
    return {
        "kind": trouble.kind,
        "text": text if has_names else "",
        "since": format_optional_moment(trouble.since),
        "iss": trouble.iss or None,
        "client_id": (trouble.client_id or None) if has_names else None,
        "subject": (trouble.subject or None) if has_names else None,
        "count": trouble.count,
        "workers": list(shared.workers),
        "explained": trouble.explained or None,
    }


def _worker_document(worker: WorkerState, *, whole: bool) -> dict[str, object]:
    """Return a worker. Unless `whole`, omit the texts that may name issuers."""
    return {
        "worker": worker.worker,
        "version": worker.version,
        "since": format_moment(worker.since),
        "draining": worker.draining,
        "consuming": worker.consuming,
        "problem": (worker.problem or None) if whole else None,
        "in_flight": worker.in_flight,
        "rates": dict(worker.rates),
        "replies_dropped": worker.replies_dropped,
        "registry": [source.document(whole=whole) for source in worker.registry],
    }


def client_document(client: ClientStatus) -> dict[str, object]:
    """Return one client as JSON."""
    moments = (
        "last_success",
        "last_failure",
        "failing_since",
        "deferred_at",
        "next_due",
        "next_try",
        "next_attempt",
        "expires",
        *EXPIRY_MEMBERS,
    )
    members = {name: getattr(client, name) for name in _CLIENT_MEMBERS if name not in {"next_delayed", "pause"}}
    pause = client.pause
    members |= {name: format_optional_moment(getattr(client, name)) for name in moments}
    return members | {
        "circuit": CIRCUIT_STATES[client.circuit],
        "state": client.state,
        "reason": client.reason or None,
        "text": client.text or None,
        "paused_until": None if pause is None else format_moment(pause.until),
        "paused_by": None if pause is None else pause.who,
        "pause_reason": None if pause is None else pause.reason,
        "parked": max(0, client.parked),
        "waits": client.pending_count,
        "waits_for": client.cause or None,
    }
