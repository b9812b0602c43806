"""Decides how a dead letter is replayed: as a new delivery or event, or not at all, with the reason.

The replacement starts with age 0 and without backoff. A dead letter whose `not_after` has passed is not replayed. A
token without `sid` ends all sessions of its user at the client, also newer ones. So a delivery without `sid` is not
replayed if a worker first received it longer ago than its client allows (`sub_only_max_age`), unless the operator
requests it.

A message that was refused is parsed again by the current rules. If it would be refused again, it is not replayed. If
only some client entries of an event were wrong, only these are parsed again, and no other client is notified.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from pydantic_core import from_json

from notifier.model.client import RetryPolicy
from notifier.model.delivery import Delivery
from notifier.model.documents.dead_letter import DeadLetter, to_message
from notifier.model.documents.documents import EventDocument, dump_delivery, dump_event
from notifier.model.documents.event_document import read_event
from notifier.model.documents.event_entries import parse_positions
from notifier.model.documents.sourced import ReadAgain, reader_name_of, to_sourced
from notifier.model.errors import MalformedEvent
from notifier.model.logout_token import has_session
from notifier.model.message import Kind, Lane, Message, MessageDraft
from notifier.model.registry import Registry
from notifier.model.session_ended import SessionEnded

DEFAULT_SUB_ONLY_MAX_AGE_SECONDS = 600.0  # if the registry cannot be read


class KeepReason(StrEnum):
    """The reason why a dead letter is not replayed."""

    NOT_AFTER = "not_after_passed"
    STALE = "would_end_newer_sessions"
    MALFORMED = "still_malformed"
    CUT = "body_not_kept"
    NEWER = "newer_release"

    @property
    def explanation(self) -> str:
        """Return the reason in words, with the remedy."""
        return _EXPLANATIONS[self]


_EXPLANATIONS: Mapping[KeepReason, str] = {
    KeepReason.NOT_AFTER: "not_after has passed, so the session has expired at the client itself; discard",
    KeepReason.STALE: "without sid and older than sub_only_max_age, so a replay would also end newer sessions of the"
    " user; --end-newer-sessions allows it",
    KeepReason.MALFORMED: "still malformed, see `show`; correct the mapping of the source, or export, correct and"
    " publish, then discard",
    KeepReason.CUT: "too large to be kept whole; only the publisher can send it again",
    KeepReason.NEWER: "written by a later release; use its notifier",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Readmission:
    """The decision to replay a dead letter: the message that replaces it, and the queue of that message."""

    queue: str
    outgoing: MessageDraft


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptDeadLetter:
    """The decision to keep a dead letter. `text` has the reason and the remedy."""

    reason: KeepReason
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRules:
    """The rules of a replay.

    `registry` is None if it cannot be read; then defaults replace the settings of clients. `max_event` is the maximum
    size of an event in bytes. `end_newer_sessions` also permits deliveries that may end newer sessions. `readers` parse
    the messages of sources, by the reader's name.
    """

    registry: Registry | None
    new_id: Callable[[], str]
    max_event: int
    end_newer_sessions: bool = False
    readers: Mapping[str, ReadAgain] = field(default_factory=dict)


def readmit(dead_letter: DeadLetter, rules: ReplayRules, now: float) -> Readmission | KeptDeadLetter:
    """Decide whether the dead letter is replayed or kept. `now` is in epoch seconds."""
    if dead_letter.delivery is not None:
        return _readmit_delivery(dead_letter.delivery, rules, now)
    if dead_letter.event is not None:
        return _readmit_event(dead_letter.event, now, rules)
    message = to_message(dead_letter, Lane.EVENTS)
    if message is None:
        return KeptDeadLetter(
            reason=KeepReason.CUT,
            text="its body was too large to be kept whole; its publisher must send it again, with 128 KiB at most",
        )
    if dead_letter.entries == "" or dead_letter.events == "":
        return _keep_malformed(
            "it has too many wrong entries to list, so the clients that were not notified are unknown"
        )
    if message.source is not None:
        return _readmit_source_message(dead_letter, message, rules, now)
    try:
        wrong_entries = None if dead_letter.entries is None else parse_positions(dead_letter.entries)
        event = read_event(message, max_bytes=rules.max_event, new_id=rules.new_id, now=now, only=wrong_entries)
    except MalformedEvent as malformed:
        return _keep_unproven() if _is_own_form(message) else _keep_malformed(str(malformed))
    return _readmit_event(event, now, rules)


def _readmit_source_message(
    dead_letter: DeadLetter, message: Message, rules: ReplayRules, now: float
) -> Readmission | KeptDeadLetter:
    """Decide about a message of a source. If it can be parsed now and is not stale, a worker receives it unchanged."""
    read_again = rules.readers.get(reader_name_of(message.source))
    if read_again is None:
        return _keep_malformed(f"this configuration has no reader for the source {message.source}")
    events = read_again(message, dead_letter.events, now)
    if isinstance(events, str):
        return KeptDeadLetter(reason=KeepReason.MALFORMED, text=events)
    policy = RetryPolicy() if rules.registry is None else rules.registry.default_of("").retry
    age = 0.0 if message.timestamp is None else now - message.timestamp
    if events.sub_only and age > policy.sub_only_max_age and not rules.end_newer_sessions:
        return _keep_stale(f"it names no session, and was sent {age:.0f} s ago", policy.sub_only_max_age)
    return Readmission(queue=Lane.EVENTS, outgoing=to_sourced(events.message, dead_letter.id, dead_letter.events))


def _readmit_delivery(delivery: Delivery, rules: ReplayRules, now: float) -> Readmission | KeptDeadLetter:
    """Replay the delivery as a new one with the same ID, unless it has expired or may end newer sessions."""
    if (expired := _keep_expired(delivery.not_after, now)) is not None:
        return expired
    limit = _sub_only_limit(delivery, rules.registry)
    if limit is not None and not rules.end_newer_sessions:
        started_at, waits = _start_of(delivery), delivery.progress.waits
        age = waits.seconds if started_at is None else max(now - started_at, waits.seconds)
        if waits.undated:
            return _keep_stale(
                "its token names no session, and its age is unknown: a clock was set back meanwhile", limit
            )
        if age > delivery.progress.uncounted_seconds + limit:
            return _keep_stale(f"its token names no session, and a worker first received it {age:.0f} s ago", limit)
    renewed = replace(
        delivery,
        id_given=True,  # workers recognise copies by the stored ID, even if the publisher gave none
        progress=delivery.progress.after_replay(),
    )
    body = dump_delivery(renewed)
    return Readmission(queue=Lane.RETRIES, outgoing=MessageDraft(kind=Kind.DELIVERY, body=body, message_id=delivery.id))


def _keep_stale(cause: str, limit: float) -> KeptDeadLetter:
    text = f"{cause} (sub_only_max_age is {limit:g} s): a replay would also end newer sessions of the user"
    return KeptDeadLetter(reason=KeepReason.STALE, text=f"{text}; --end-newer-sessions allows it")


def _start_of(delivery: Delivery) -> float | None:
    """Return when a worker first received the delivery, or attempted it if that was earlier; None if unknown.

    A replay clears `first_taken_at`, so without the history a delivery could be replayed again and again.
    """
    moments = [past.at for past in delivery.progress.history[:1]]
    if delivery.progress.first_taken_at is not None:
        moments.append(delivery.progress.first_taken_at)
    return min(moments, default=None)


def _readmit_event(event: SessionEnded, now: float, rules: ReplayRules) -> Readmission | KeptDeadLetter:
    """Replay the event with the same ID, unless it has expired, or may end newer sessions: it waited in a spool."""
    if (expired := _keep_expired(event.not_after, now)) is not None:
        return expired
    if event.received_at is not None and event.sid is None and not rules.end_newer_sessions:
        policy = RetryPolicy() if rules.registry is None else rules.registry.default_of(event.iss).retry
        if (age := now - event.received_at) > policy.sub_only_max_age:
            return _keep_stale(f"it names no session, and was received {age:.0f} s ago", policy.sub_only_max_age)
    body = dump_event(EventDocument(event=replace(event, id_given=True, received_at=None)))
    return Readmission(queue=Lane.EVENTS, outgoing=MessageDraft(kind=Kind.EVENT, body=body, message_id=event.id))


def _keep_malformed(errors: str) -> KeptDeadLetter:
    return KeptDeadLetter(
        reason=KeepReason.MALFORMED,
        text=f"still malformed ({errors}): export it, correct it, `notifier publish` it, then discard this one",
    )


def _is_own_form(message: Message) -> bool:
    """Return True if the message has the form of a delivery, event or dead letter that a worker writes.

    A publisher can forge that form, so the message is not trusted.
    """
    try:
        content = from_json(message.body)
    except ValueError:
        return False
    own_names = {"delivery", "event", "dead_since"}
    return isinstance(content, dict) and "v" in content and not own_names.isdisjoint(content)


def _keep_unproven() -> KeptDeadLetter:
    """Keep a message that a worker or a forger has written: see `_is_own_form`."""
    return KeptDeadLetter(
        reason=KeepReason.MALFORMED,
        text=(
            "it looks like one of notifier's own messages that the broker has moved, but so would a forgery. "
            "To send its logout, publish an event with its iss, sub, sid and client (`notifier publish`), then "
            "discard this one"
        ),
    )


def _keep_expired(not_after: float | None, now: float) -> KeptDeadLetter | None:
    """Return the decision to keep a dead letter whose `not_after` has passed; otherwise None."""
    if not_after is None or now <= not_after:
        return None
    return KeptDeadLetter(
        reason=KeepReason.NOT_AFTER,
        text="not_after has passed: the session has expired at the client itself; discard it",
    )


def _sub_only_limit(delivery: Delivery, registry: Registry | None) -> float | None:
    """Return the age in seconds up to which a delivery without `sid` may be replayed; None if its token has a `sid`."""
    if registry is None:
        return DEFAULT_SUB_ONLY_MAX_AGE_SECONDS if delivery.sid is None else None
    client = registry.client_of(delivery) or registry.default_of(delivery.iss)
    return None if has_session(delivery, client) else client.retry.sub_only_max_age
