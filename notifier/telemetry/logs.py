"""Logs the facts of deliveries: one line for each attempt, and lines for events, deferrals and dead letters.

`sub` and `sid` appear as a keyed hash, as configured also not at all or raw. Text from clients is made printable and
short. `redact` removes tokens and passwords from the finished line.
"""

import hmac
import logging
import secrets
import traceback
from collections.abc import Callable, Mapping
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
    MembersMisspelt,
    Skipped,
    Unexpected,
)
from notifier.model.client import Client
from notifier.model.delivery import Delivery
from notifier.model.moment import format_moment
from notifier.model.outcome import Delivered, Failed, Outcome, Refused
from notifier.model.redaction import redact, redact_subject
from notifier.model.shared_resources import shared_bound, shared_cache
from notifier.settings.service_settings import Settings
from notifier.settings.subject_key import read_subject_key
from notifier.telemetry.log_output import make_quick_writer

MAX_NAME_LENGTH = 100  # characters per client in a list of clients
MAX_TEXT_LENGTH = 200  # characters of texts from outside
MAX_REMEMBERED_REMARKS = shared_bound(100)  # pairs of publisher and member
MAX_REMEDY_TEXT_LENGTH = 800  # characters of notifier's own texts, which end with the remedy
_OUTCOMES: Mapping[type[Outcome], str] = {Delivered: "delivered", Refused: "refused", Failed: "failed"}

Subjects = Literal["hash", "omit", "raw"]


class SubjectHash:
    """The keyed hash of a `sub` or `sid` in logs: 16 hexadecimal digits of HMAC-SHA-256.

    `lasting`: True if the key was given. Otherwise the key is random, so that hashes of other processes differ.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self.lasting = key is not None
        self._key = secrets.token_bytes(32) if key is None else key
        self.log_id: Callable[[str], str] = shared_cache(256)(self._log_id)  # the clients of an event share its subject
        """Returns the hash of a value."""

    def _log_id(self, value: str) -> str:
        return hmac.digest(self._key, value.encode("utf-8", "surrogatepass"), "sha256").hex()[:16]


def clip(text: str, length: int = MAX_TEXT_LENGTH) -> str:
    """Return the start of an untrusted text, with unprintable characters replaced."""
    text = text[:length]
    return text if text.isprintable() else "".join(char if char.isprintable() else "·" for char in text)


_clip_name = shared_cache(1024)(clip)  # for issuers and clients, which repeat


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
        formats: dict[Subjects, Callable[[str], str] | None] = {"hash": self._hash.log_id, "raw": clip, "omit": None}
        self._format_subject = formats[subject]
        self._log: FilteringBoundLogger = structlog.get_logger().bind() if logger is None else logger
        self._quick = make_quick_writer() if logger is None else None
        self._remarked: dict[tuple[str | None, str], None] = {}  # logged pairs of publisher (or source) and member
        self._skips_debug = not self._log.is_enabled_for(logging.DEBUG)  # saves 40 µs for each line not written
        self.observe = FactHandlers(  # the line of the attempt covers the other facts
            {
                Attempted: self._on_attempt,
                LogoutDelivered: self._on_attempt,
                DeadLettered: self._on_dead_letter,
                Deferred: self._on_deferred,
                EventTaken: self._on_event_taken,
                Skipped: lambda fact: self._log.debug("skipped", **_delivery_members(fact), reason=fact.reason.value),
                MembersMisspelt: self._on_members_misspelt,
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
        self._skips_debug = not self._log.is_enabled_for(logging.DEBUG)

    def log_surplus(self, client: Client) -> None:
        """Log that a client sent bytes after its response."""
        hint = "its server sends bytes behind its answer; they were dropped, and the connection was closed"
        self._log.warning("answer_surplus", iss=clip(client.iss), client_id=clip(client.client_id), hint=hint)

    def _on_dead_letter(self, fact: DeadLettered) -> None:
        error, subject = fact.text, {}
        if fact.delivery is not None:
            error, subject = self._remove_subject(error, fact.delivery), self._subject_members(fact.delivery)
            error = redact(error)
        members = {
            "reason": str(fact.reason),
            "error": clip(error, MAX_REMEDY_TEXT_LENGTH),
            "help": f"notifier explain {fact.reason}",
        }
        self._log.warning("dead_letter", **_delivery_members(fact), **members, **subject)

    def _on_deferred(self, fact: Deferred) -> None:
        if self._skips_debug and not fact.first:
            return
        write = self._log.warning if fact.first else self._log.debug
        texts = {}
        if fact.text:
            texts = {"error": clip(fact.text, MAX_REMEDY_TEXT_LENGTH), "help": f"notifier explain {fact.cause}"}
        if fact.hint:
            texts["hint"] = clip(fact.hint, MAX_REMEDY_TEXT_LENGTH)
        write("deferral", **_delivery_members(fact), cause=str(fact.cause), due=_rfc3339(fact.due), **texts)

    def _on_event_taken(self, fact: EventTaken) -> None:
        if self._skips_debug and fact.result != "malformed" and not fact.unread:
            return
        write = self._log.warning if fact.result == "malformed" else self._log.debug
        write("event", **_event_members(fact), result=fact.result, deliveries=fact.deliveries)
        if fact.unread:
            self._log.warning(
                "members_unread", **_event_members(fact), members=", ".join(fact.unread), hint=_UNREAD_HINT
            )

    def _on_members_misspelt(self, fact: MembersMisspelt) -> None:
        """Log each misspelt member once per publisher. The oldest pairs are forgotten beyond the first 100."""
        for member in fact.members:
            pair = fact.source or fact.publisher, member.meant
            if pair in self._remarked:
                continue
            if len(self._remarked) == MAX_REMEMBERED_REMARKS:
                del self._remarked[next(iter(self._remarked))]
            self._remarked[pair] = None
            members = {"member": clip(member.written), "meant": member.meant, "hint": _MISSPELT_HINT}
            self._log.warning("member_misspelt", **_event_members(fact), **members)

    def _on_unexpected(self, fact: Unexpected) -> None:
        frames = "".join(traceback.format_tb(fact.error.__traceback__))  # without the text, which may have a `sub`
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
        delivery, outcome = fact.delivery, fact.outcome
        line: dict[str, object] = {
            "event_id": clip(delivery.event_id),
            "iss": _clip_name(delivery.iss),
            "client_id": _clip_name(delivery.client_id),
            "attempt": fact.number,
            "jti": fact.jti,
            "outcome": _OUTCOMES[type(outcome)],
            "reason": str(outcome.reason),
            "status": outcome.status,
            "seconds": round(fact.seconds, 6),
            "next_due": None if fact.next_due is None else _rfc3339(fact.next_due),
        }
        if delivery.publisher is not None:
            line["publisher"] = clip(delivery.publisher)
        line.update(self._subject_members(delivery))
        if not isinstance(outcome, Delivered):
            line["error"] = clip(redact(self._remove_subject(outcome.text, delivery)))
        return line

    def _subject_members(self, delivery: Delivery) -> dict[str, str]:
        """Return `sub` and `sid` in the configured form; empty if they are omitted."""
        members: dict[str, str] = {}
        format_subject = self._format_subject
        if format_subject is not None:
            if delivery.sub is not None:
                members["sub"] = format_subject(delivery.sub)
            if delivery.sid is not None:
                members["sid"] = format_subject(delivery.sid)
        return members

    def _remove_subject(self, text: str, delivery: Delivery) -> str:
        """Return a client's text ("no session of alice") without `sub` and `sid`, unless the log shows them raw.

        Call it before `clip`, which could cut a `sub` in two.
        """
        return text if self._subject == "raw" else redact_subject(text, delivery.sub, delivery.sid, delivery.email)


def _delivery_members(fact: DeadLettered | Deferred | Skipped | Unexpected) -> dict[str, str]:
    return {"event_id": clip(fact.event_id), "iss": clip(fact.iss), "client_id": clip(fact.client_id)}


def _event_members(fact: EventTaken | IgnoredOverrides | MembersMisspelt) -> dict[str, str | None]:
    publisher = None if fact.publisher is None else clip(fact.publisher)
    source = {} if fact.source is None else {"source": clip(fact.source)}
    return {"event_id": clip(fact.event_id), "iss": clip(fact.iss), "publisher": publisher, **source}


_MISSPELT_HINT = (
    "unknown members are left out, and without sid all sessions of the user end; correct the name at the publisher"
)
_UNREAD_HINT = (
    "they are dropped, and the event is delivered; a time must be an RFC 3339 timestamp with an offset, a reason a text"
)


def _ignored_members(fact: IgnoredOverrides) -> dict[str, object]:
    """Return the members of a log line about ignored members of an event: their names by client, and the remedy."""
    text = "; ".join(
        f"{clip(client_id, MAX_NAME_LENGTH)}: {', '.join(names)}" for client_id, names in fact.members.items()
    )
    hint = (
        "only the identity server's word counts (registry.inline); if this publisher is it, name it in"
        " issuers.<iss>.publishers"
    )
    if fact.denied:
        hint = "registry.inline is deny: no event may supply a client's address or `email`"
    return {**_event_members(fact), "clients": fact.clients, "members": text, "hint": hint}


def _rfc3339(moment: float) -> str:
    return f"{format_moment(moment)[:23]}Z"


def subject_hash(settings: Settings) -> SubjectHash:
    """Return the hash of `sub` and `sid` in logs. Raises ConfigurationError."""
    key = read_subject_key(settings)
    return SubjectHash(None if key is None else key.encode())


def subject_id(settings: Settings) -> Callable[[str], str]:
    """Return the function that replaces a `sub` or `sid` in audit lines.

    It returns the hash of the log. Without a configured key, or if the log omits subjects, it returns a fixed text.
    Raises ConfigurationError.
    """
    subject = subject_hash(settings)
    return subject.log_id if subject.lasting and settings.log.subject != "omit" else lambda _: "[given]"
