"""Writes the status of the service as JSON: `GET /v1/status`, and `notifier status --json`."""

from collections.abc import Callable
from dataclasses import fields

from notifier.delivery.admission import NO_ADDRESS, NO_SUCH_CLIENT
from notifier.model.message import DEAD, PARKED
from notifier.model.moment import format_moment, format_optional_moment
from notifier.model.trouble import SharedTrouble, TroubleKind
from notifier.operators.status.client_state import ClientState
from notifier.operators.status.service_status import (
    ServiceStatus,
    WorkerState,
    consumed_queues_of,
    count_delayed,
    count_held_messages,
    missing_bindings_of,
    rates_of,
    seen_keys_of,
    troubles_of,
)
from notifier.tokens.first_day import SeenKey

CIRCUIT_STATES = ("closed", "half-open", "open")
EXPIRY_MEMBERS = ("expires_with_sid", "expires_without_sid")
_CLIENT_MEMBERS = tuple(member.name for member in fields(ClientState))


def document_of(status: ServiceStatus, concerns: Callable[[str], bool] | None = None) -> dict[str, object]:
    """Return the JSON of `GET /v1/status` and `--json`, with the clients of issuers for which `concerns` is true.

    None permits all issuers. Otherwise names and texts without a single issuer are omitted, too.
    """
    whole = concerns is None
    concerns = concerns or _concerns_all
    queues: dict[str, object] = {
        queue: {
            "ready": status.depths[queue].ready,
            "held": count_held_messages(status, queue),
            "oldest": format_optional_moment(status.oldest.get(queue)),
        }
        for queue in consumed_queues_of(status)
    }
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
        "clients": [client_document(client) for client in status.clients if concerns(client.iss)],
        "clients_left_out": status.left_out if whole else None,
        "bindings_missing": [binding.row() for binding in missing_bindings_of(status)],
        "keys": [_key_document(key) for (iss, _), key in sorted(seen_keys_of(status).items()) if concerns(iss)],
        "troubles": [
            _trouble_document(trouble, whole=whole) for trouble in troubles_of(status) if _is_shown(trouble, concerns)
        ],
    }


def _concerns_all(_iss: str) -> bool:
    return True


def _key_document(key: SeenKey) -> dict[str, object]:
    """`appeared`: the key was added at `published_since`. Otherwise it was already there at the first check."""
    return {
        "iss": key.iss,
        "kid": key.kid,
        "published_since": format_optional_moment(key.since),
        "appeared": key.appeared,
    }


def _is_shown(shared: SharedTrouble, concerns: Callable[[str], bool]) -> bool:
    return not shared.trouble.iss or concerns(shared.trouble.iss)


def _trouble_document(shared: SharedTrouble, *, whole: bool) -> dict[str, object]:
    """Omit names of other issuers: a trouble without issuer, or the hint after an unknown client, may have some."""
    trouble = shared.trouble
    text, named = trouble.text, whole or bool(trouble.iss)
    if not whole and trouble.kind == TroubleKind.UNKNOWN_CLIENT:
        text = NO_ADDRESS if text.startswith(NO_ADDRESS) else NO_SUCH_CLIENT
    return {
        "kind": trouble.kind,
        "text": text if named else "",
        "since": format_optional_moment(trouble.since),
        "iss": trouble.iss or None,
        "client_id": (named and trouble.client_id) or None,
        "subject": (named and trouble.subject) or None,
        "count": trouble.count,
        "workers": list(shared.workers),
        "explained": trouble.explained or None,
    }


def _worker_document(worker: WorkerState, *, whole: bool) -> dict[str, object]:
    return {
        "worker": worker.worker,
        "version": worker.version,
        "since": format_moment(worker.since),
        "draining": worker.draining,
        "consuming": worker.consuming,
        "problem": (whole and worker.problem) or None,
        "in_flight": worker.in_flight,
        "rates": dict(worker.rates),
        "replies_dropped": worker.replies_dropped,
        "registry": [source.document(whole=whole) for source in worker.registry],
    }


def client_document(client: ClientState) -> dict[str, object]:
    """Return one client as JSON."""
    names = (
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
    plain = (name for name in _CLIENT_MEMBERS if name != "next_delayed")
    shown = {name: getattr(client, name) for name in plain} | {
        name: format_optional_moment(getattr(client, name)) for name in names
    }
    return shown | {
        "circuit": CIRCUIT_STATES[client.circuit],
        "state": client.state,
        "reason": client.reason or None,
        "text": client.text or None,
        "parked": max(0, client.parked),
        "waits": client.pending_count,
        "waits_for": client.cause or None,
    }
