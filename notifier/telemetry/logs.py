"""Writes the log: one line per attempt, JSON unless on a terminal, without secrets.

`sub` and `sid` appear as a keyed hash (or not at all, or raw if the operator chooses so). Text from clients is made
printable and short. `redact` removes tokens and passwords from the finished line.
"""

import hmac
import logging
import secrets
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal

import structlog
from structlog.typing import FilteringBoundLogger

from notifier.delivery.facts import (
    Attempted,
    ClientFailing,
    ClientRecovered,
    ClientServed,
    DeadLettered,
    Deferred,
    EventTaken,
    FactHandlers,
    IgnoredOverrides,
    LogoutDelivered,
    Skipped,
    Unexpected,
)
from notifier.model.client import Client
from notifier.model.delivery import Delivery
from notifier.model.outcome import Delivered, Failed, Outcome, Refused
from notifier.model.redaction import redact, redact_subject
from notifier.settings.service_settings import Settings
from notifier.settings.subject_key import read_subject_key
from notifier.telemetry.log_output import make_quick_writer

MAX_NAME_LENGTH = 100  # characters per client in a list of clients
MAX_TEXT_LENGTH = 200  # characters of texts from outside
MAX_REMEDY_TEXT_LENGTH = 800  # characters of notifier's own texts, which end with the remedy
_OUTCOMES: Mapping[type[Outcome], str] = {Delivered: "delivered", Refused: "refused", Failed: "failed"}

Subjects = Literal["hash", "omit", "raw"]


class SubjectHash:
    """The keyed hash of a `sub` or `sid` in logs: HMAC-SHA-256, 16 digits. `lasting`: the key is a configured one."""

    def __init__(self, key: bytes | None = None) -> None:
        self.lasting = key is not None
        self._key = secrets.token_bytes(32) if key is None else key
        self.log_id: Callable[[str], str] = lru_cache(256)(self._log_id)  # the clients of an event share its subject
        """Returns the hash of a value."""

    def _log_id(self, value: str) -> str:
        return hmac.digest(self._key, value.encode("utf-8", "surrogatepass"), "sha256").hex()[:16]


def clip(text: str, length: int = MAX_TEXT_LENGTH) -> str:
    """Return the start of an untrusted text, with unprintable characters replaced."""
    text = text[:length]
    return text if text.isprintable() else "".join(char if char.isprintable() else "·" for char in text)


_clip_name = lru_cache(1024)(clip)  # for issuers and clients, which repeat


class LogObserver:
    """Logs the facts of the pipeline. Create it after `configure`."""

    def __init__(
        self,
        *,
        subject: Subjects = "hash",
        hashing: SubjectHash | None = None,
        logger: FilteringBoundLogger | None = None,
    ) -> None:
        self._subject = subject
        self._hash = hashing or SubjectHash()
        shown: dict[Subjects, Callable[[str], str] | None] = {"hash": self._hash.log_id, "raw": clip, "omit": None}
        self._shown = shown[subject]
        self._log: FilteringBoundLogger = structlog.get_logger().bind() if logger is None else logger
        self._quick = make_quick_writer() if logger is None else None
        self._brief = not self._log.is_enabled_for(logging.DEBUG)  # saves 40 µs for each line that is not written
        self.observe = FactHandlers(  # `attempt` or UpstreamRecord covers others
            {
                Attempted: self._on_attempt,
                LogoutDelivered: self._on_attempt,
                DeadLettered: self._on_dead_letter,
                Deferred: self._on_deferred,
                EventTaken: self._on_event_taken,
                Skipped: lambda fact: self._log.debug("skipped", **_delivery_members(fact)),
                IgnoredOverrides: lambda fact: self._log.warning("members_ignored", **_ignored_members(fact)),
                Unexpected: self._on_unexpected,
                ClientFailing: self._on_client_failing,
                ClientRecovered: self._on_client_recovered,
                ClientServed: self._on_client_served,
            }
        )
        """Logs a fact."""
        if subject == "hash" and not self._hash.lasting:
            self._log.info(
                "log_key_made_up",
                hint="sub and sid are hashed with a key of this process only; set log.subject_key_file to share one",
            )

    def on_level_change(self) -> None:
        """Apply the log level that was set last."""
        self._log = structlog.get_logger().bind()
        self._brief = not self._log.is_enabled_for(logging.DEBUG)

    def log_surplus(self, client: Client) -> None:
        """Log that a client sent bytes after its response."""
        hint = "its server sends bytes behind its answer; they were dropped, and the connection was closed"
        self._log.warning("answer_surplus", iss=clip(client.iss), client_id=clip(client.client_id), hint=hint)

    def _on_dead_letter(self, fact: DeadLettered) -> None:
        error = fact.text if fact.delivery is None else redact(self._without_subject(fact.text, fact.delivery))
        more = {} if fact.delivery is None else self._subject_members(fact.delivery)
        members = {
            "reason": str(fact.reason),
            "error": clip(error, MAX_REMEDY_TEXT_LENGTH),
            "help": f"notifier explain {fact.reason}",
        }
        self._log.warning("dead_letter", **_delivery_members(fact), **members, **more)

    def _on_deferred(self, fact: Deferred) -> None:
        if self._brief and not fact.first:
            return
        write = self._log.warning if fact.first else self._log.debug
        more = (
            {"error": clip(fact.text, MAX_REMEDY_TEXT_LENGTH), "help": f"notifier explain {fact.cause}"}
            if fact.text
            else {}
        )
        if fact.hint:
            more["hint"] = clip(fact.hint, MAX_REMEDY_TEXT_LENGTH)
        write("deferral", **_delivery_members(fact), cause=str(fact.cause), due=_rfc3339(fact.due), **more)

    def _on_event_taken(self, fact: EventTaken) -> None:
        if self._brief and fact.result != "malformed" and not fact.unread:
            return
        write = self._log.warning if fact.result == "malformed" else self._log.debug
        write("event", **_event_members(fact), result=fact.result, deliveries=fact.deliveries)
        if fact.unread:
            self._log.warning(
                "members_unread", **_event_members(fact), members=", ".join(fact.unread), hint=_UNREAD_HINT
            )

    def _on_unexpected(self, fact: Unexpected) -> None:
        frames = "".join(traceback.format_tb(fact.error.__traceback__))  # not the text, which may quote a `sub`
        self._log.error("unexpected", **_delivery_members(fact), error=type(fact.error).__name__, exception=frames)

    def _on_client_failing(self, fact: ClientFailing) -> None:
        next_try, hint = _rfc3339(fact.next_try), "notifier explain NotifierClientFailing"
        self._log.warning("client_failing", iss=fact.iss, client_id=fact.client_id, next_try=next_try, help=hint)

    def _on_client_recovered(self, fact: ClientRecovered) -> None:
        self._log.info("client_recovered", iss=fact.iss, client_id=fact.client_id, outage=round(fact.outage, 1))

    def _on_client_served(self, fact: ClientServed) -> None:
        self._log.info("client_served", iss=fact.iss, client_id=fact.client_id, seconds=round(fact.seconds, 1))

    def _on_attempt(self, fact: Attempted) -> None:
        if self._quick is None:
            self._log.info("attempt", **self._attempt_members(fact))
        elif self._log.is_enabled_for(logging.INFO):
            self._quick("attempt", self._attempt_members(fact))

    def _attempt_members(self, fact: Attempted) -> dict[str, object]:
        delivery, met = fact.delivery, fact.outcome
        line: dict[str, object] = {
            "event_id": clip(delivery.event_id),
            "iss": _clip_name(delivery.iss),
            "client_id": _clip_name(delivery.client_id),
            "attempt": fact.number,
            "jti": fact.jti,
            "outcome": _OUTCOMES[type(met)],
            "reason": str(met.reason),
            "status": met.status,
            "seconds": round(fact.seconds, 6),
            "next_due": None if fact.next_due is None else _rfc3339(fact.next_due),
        }
        if delivery.publisher is not None:
            line["publisher"] = clip(delivery.publisher)
        line.update(self._subject_members(delivery))
        if not isinstance(met, Delivered):
            line["error"] = clip(redact(self._without_subject(met.text, delivery)))
        return line

    def _subject_members(self, delivery: Delivery) -> dict[str, str]:
        """Return `sub` and `sid` in the configured form."""
        names: dict[str, str] = {}
        if (shown := self._shown) is not None:
            if delivery.sub is not None:
                names["sub"] = shown(delivery.sub)
            if delivery.sid is not None:
                names["sid"] = shown(delivery.sid)
        return names

    def _without_subject(self, text: str, delivery: Delivery) -> str:
        """Return a client's text without the user ("no session of alice"). Call it before `clip`."""
        return text if self._subject == "raw" else redact_subject(text, delivery.sub, delivery.sid)


def _delivery_members(fact: DeadLettered | Deferred | Skipped | Unexpected) -> dict[str, str]:
    return {"event_id": clip(fact.event_id), "iss": clip(fact.iss), "client_id": clip(fact.client_id)}


def _event_members(fact: EventTaken | IgnoredOverrides) -> dict[str, str | None]:
    by = None if fact.publisher is None else clip(fact.publisher)
    source = {} if fact.source is None else {"source": clip(fact.source)}
    return {"event_id": clip(fact.event_id), "iss": clip(fact.iss), "publisher": by, **source}


_UNREAD_HINT = (
    "they are dropped, and the event is delivered; a time must be an RFC 3339 timestamp with an offset, a reason a text"
)


def _ignored_members(fact: IgnoredOverrides) -> dict[str, object]:
    """Return the ignored members by client, without their values, and the remedy."""
    text = "; ".join(
        f"{clip(client_id, MAX_NAME_LENGTH)}: {', '.join(names)}" for client_id, names in fact.members.items()
    )
    hint = (
        "registry.inline is deny: no event may supply a client's address"
        if fact.denied
        else "only the identity server's word counts (registry.inline); if this publisher is it, name it in"
        " issuers.<iss>.publishers"
    )
    return {**_event_members(fact), "clients": fact.clients, "members": text, "hint": hint}


def _rfc3339(moment: float) -> str:
    with suppress(OverflowError, ValueError, OSError):
        return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return str(moment)


def subject_hash(settings: Settings) -> SubjectHash:
    """Return the hash of `sub` and `sid` in logs. Raises ConfigurationError."""
    key = read_subject_key(settings)
    return SubjectHash(None if key is None else key.encode())


def subject_id(settings: Settings) -> Callable[[str], str]:
    """Return the function for a `sub` or `sid` in audit lines: the hash of the log if its key is set, else a mark."""
    made = subject_hash(settings)
    return made.log_id if made.lasting and settings.log.subject != "omit" else lambda _: "[given]"
