"""Replace the message of a session's end at an upstream by events, one for each local session that ends with it.

The database or endpoint of sessions may be slow or unavailable. The message is then delayed and the look-up repeated,
up to the maximum age of a delivery. A message without `sid` ends all sessions of the user. It is repeated for a short
time only, since later it would end a newer session (rule B13). After the last failed look-up the message becomes a dead
letter, which an operator can replay.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, assert_never

from notifier.delivery.facts import Observer
from notifier.delivery.settlement import OutgoingMessage, to_dead_letter_message
from notifier.features.upstreams.upstream import (
    LocalSessions,
    SessionFinder,
    SessionsLookedUp,
    SessionsUnavailable,
    UpstreamSessionEnd,
    load_session_end,
    to_local_event,
    upstream_of,
)
from notifier.messages.replacements import Replacement
from notifier.model.ages import fault_wait_seconds, remaining_grace
from notifier.model.backoff import deferral_wait
from notifier.model.client import RetryPolicy
from notifier.model.documents import dead_letter, documents
from notifier.model.documents.sourced import RereadMessage, to_kept, to_sourced
from notifier.model.errors import InputIssue, MalformedEvent, UnknownSource
from notifier.model.message import Kind, Lane, Message, MessageDraft
from notifier.model.moment import Clock
from notifier.model.outcome import DeadReason
from notifier.model.record import copy_record
from notifier.model.registry import CurrentRegistry

_LOOK_UPS_HEADER = "looks"  # the number of failed look-ups of a message
_MAX_LOOK_UPS = 10_000  # of a message; more means that the header is not notifier's
_DEFAULT_POLICY = RetryPolicy()


class UpstreamIntake:
    """Opens messages of upstreams. `new_id` makes ids of messages."""

    def __init__(
        self,
        find_upstream: Callable[[str], SessionFinder | None],
        registry: CurrentRegistry,
        *,
        clock: Clock,
        new_id: Callable[[], str],
        observe: Observer,
    ) -> None:
        self._find_upstream = find_upstream
        self._registry = registry
        self._clock = clock
        self._new_id = new_id
        self._observe = observe

    def without_secrets(self, message: Message) -> Message:
        """Return the message without the headers that must not be stored."""
        return to_kept(message)

    def open(self, message: Message, _only: str | None, _now: float, rest_until: float | None) -> Replacement:
        """Return the replacement of a message, which looks up its sessions. Raises UnknownSource.

        The events are due at `rest_until` (epoch seconds; None: at once).
        """
        name = upstream_of(message)
        upstream = self._find_upstream(name)
        if upstream is None:
            text = f"the upstream {name} is not configured (any more); add upstreams.{name}, then replay"
            raise UnknownSource([InputIssue("", text)])
        return Replacement(make_messages=partial(self._look_up, upstream, message, rest_until))

    async def _look_up(
        self, upstream: SessionFinder, message: Message, rest_until: float | None
    ) -> Sequence[OutgoingMessage]:
        """Look up the sessions. Return the messages to publish instead of this one. Never raises."""
        try:
            session_end = load_session_end(upstream_of(message), message.body)
        except MalformedEvent as malformed:
            letter = dead_letter.dead_letter_raw(message, malformed.mistakes, self._clock())
            return [to_dead_letter_message(letter, None)]
        sessions = await upstream.look_up(session_end.upstream_session)
        match sessions:
            case LocalSessions():
                return self._to_events(session_end, sessions, rest_until, message.received_at)
            case SessionsUnavailable():
                return [self._defer_or_give_up(session_end, message, sessions.text)]
            case _:
                assert_never(sessions)

    def _to_events(
        self,
        session_end: UpstreamSessionEnd,
        sessions: LocalSessions,
        rest_until: float | None,
        received_at: float | None,
    ) -> Sequence[OutgoingMessage]:
        """Return an event for each session; the last has the fact `found`. Without sessions, observe `no_session`."""
        if not sessions.sessions:
            text = f"none has the {_member_names(session_end)} of the token"
            self._observe(_to_fact(session_end, "no_session", text))
        messages: list[OutgoingMessage] = []
        for session in sessions.sessions:
            event = to_local_event(session_end, sessions.iss, session, received_at)
            body = documents.dump_event(documents.EventDocument(event=event))
            message = MessageDraft(kind=Kind.EVENT, body=body, message_id=event.id)
            messages.append(OutgoingMessage(queue=Lane.EVENTS, due=rest_until, message=message))
        if messages:
            messages[-1] = copy_record(messages[-1], fact=_to_fact(session_end, "found"))
        return messages

    def _defer_or_give_up(self, session_end: UpstreamSessionEnd, message: Message, text: str) -> OutgoingMessage:
        """Return the message with a delay, or its dead letter if look-ups have failed for too long."""
        now, failed_count = self._clock(), _count_failed_look_ups(message)
        has_sid = session_end.upstream_session.sid is not None
        template = self._registry().unregistered
        policy = _DEFAULT_POLICY if template is None else template.retry
        max_age = policy.max_age if has_sid else policy.sub_only_max_age
        left = remaining_grace(message.timestamp, failed_count, max_age, now, bounded=has_sid)
        if left <= 0:
            error = f"the look-up of the sessions that end with it failed: {text}"
            letter = dead_letter.dead_letter_unread(message, DeadReason.UNRESOLVED, error, now)
            self._observe(_to_fact(session_end, "given_up", text))
            return to_dead_letter_message(letter, None)
        delayed = copy_record(message, headers={_LOOK_UPS_HEADER: failed_count + 1})
        return OutgoingMessage(
            message=to_sourced(delayed, self._new_id()),
            due=now + deferral_wait(min(left, fault_wait_seconds(failed_count))),
            rounding="up",
            fact=_to_fact(session_end, "away", text),
        )


def read_again(message: Message, _only: str | None, now: float) -> RereadMessage | str:
    """Return the message for a replay, or why it cannot be replayed. The time for look-ups starts again."""
    try:
        sid = load_session_end(upstream_of(message), message.body).upstream_session.sid
    except MalformedEvent as malformed:
        return f"still malformed ({malformed}): only its upstream can send it again; discard this one"
    renewed = copy_record(message, headers={}, timestamp=now, received_at=None)
    return RereadMessage(message=renewed, sub_only=sid is None)


def _count_failed_look_ups(message: Message) -> int:
    """Return the number in the message's header; 0 for an invalid value."""
    count = message.headers.get(_LOOK_UPS_HEADER, 0)
    return count if isinstance(count, int) and 0 <= count < _MAX_LOOK_UPS else 0


def _member_names(session_end: UpstreamSessionEnd) -> str:
    """Return which of `sub` and `sid` the token had, without the values."""
    session = session_end.upstream_session
    if session.sub is not None and session.sid is not None:
        return "sub and sid"
    return "sub" if session.sid is None else "sid"


def _to_fact(
    session_end: UpstreamSessionEnd, result: Literal["found", "no_session", "away", "given_up"], text: str = ""
) -> SessionsLookedUp:
    return SessionsLookedUp(upstream=session_end.upstream, result=result, text=text)
