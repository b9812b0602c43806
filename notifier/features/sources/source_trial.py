"""Convert a document for `notifier sources try`, as a post or as a message of a queue.

A post is validated like `POST /v1/events/{source}`, except for the secret or signature.
"""

import sys
import time
from dataclasses import dataclass

from pydantic_core import to_json

from notifier.features.sources.envelopes import is_message_header
from notifier.features.sources.post_rules import SET_TYPE, create_post_rules
from notifier.features.sources.sns_message import SnsRefusal, SnsTopic, read_members, read_sns
from notifier.features.sources.source import Source
from notifier.features.sources.source_operations import find_grid_code
from notifier.features.sources.source_settings import SetSettings, SnsSettings, SourceHttpSettings, sources_of
from notifier.model.defaults import MAX_EVENT
from notifier.model.errors import InputIssue, MalformedEvent
from notifier.model.frozen import replace
from notifier.model.message import Message
from notifier.model.session_ended import SessionEnded
from notifier.publishing.event_remarks import remark_unread_members
from notifier.settings.service_settings import Settings
from notifier.tokens.security_event_token import check_claims, parse_claims


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The result of a trial. `refused`: nothing would be queued."""

    events: tuple[SessionEnded, ...] = ()
    ignored: int = 0
    mistakes: tuple[InputIssue, ...] = ()
    warnings: tuple[InputIssue, ...] = ()
    refused: bool = False


@dataclass(frozen=True, slots=True)
class _UnqueuedAnswer:
    """The answer to a post that is not queued."""

    text: str
    refused: bool = True


def try_message(settings: Settings, source: Source, message: Message, *, is_dead_letter: bool) -> Trial:
    """Return the result for the message. `is_dead_letter`: it was received before, and is in a dead letter.

    If the source accepts posts and binds exchanges, the message may have been received by either.
    """
    options = sources_of(settings)[source.name]
    warnings: list[InputIssue] = []
    if options.http is not None and not is_dead_letter:
        posted = _to_posted(message, options.http, source)
        if isinstance(posted, _UnqueuedAnswer):
            answer = InputIssue(f"sources.{source.name}.http", f"a post of it is answered {posted.text}")
            if not options.bind:
                return Trial(mistakes=(answer,), refused=True) if posted.refused else Trial(warnings=(answer,))
            warnings.append(answer)
        else:
            if (error := _find_signature_error(message, options.http)) is not None:
                text = f"its signature is not looked at here, without which a post of it is answered 401: {error}"
                warnings.append(InputIssue(f"sources.{source.name}.http.sns", text))
            message = message if options.bind else posted
    try:
        translation = source.translate(
            source.strip_headers(message), max_bytes=MAX_EVENT, new_id=lambda: "", now=time.time(), most=sys.maxsize
        )
    except MalformedEvent as malformed:
        return Trial(mistakes=malformed.mistakes, warnings=tuple(warnings))
    if any(event.id in translation.timeless_ids for event in translation.events):
        text = "is a digest without a time: another message with the same content counts as a copy; read ended_at or id"
        warnings.append(InputIssue(f"sources.{source.name}.event.id", text))
    remarks = dict.fromkeys(remark for event in translation.events for remark in remark_unread_members(event))
    warnings.extend(InputIssue(f"sources.{source.name}.event", remark) for remark in remarks)
    return Trial(
        events=translation.events,
        ignored=translation.ignored,
        mistakes=() if translation.wrong is None else translation.wrong.mistakes,
        warnings=tuple(warnings),
    )


def _to_posted(message: Message, http: SourceHttpSettings, source: Source) -> Message | _UnqueuedAnswer:
    """Return the message that a post would queue. A missing content type is replaced by an accepted one."""
    rules = create_post_rules(http, source)
    objection = None if message.content_type is None else rules.check_type(message.content_type)
    if objection is None and len(message.body) > MAX_EVENT:
        return _UnqueuedAnswer(f"413: it has {len(message.body):,} bytes; at most {MAX_EVENT:,} are allowed")
    objection = objection or rules.check_headers(message.headers) or rules.check_body(message.body)
    if objection is not None:
        way_out = "; to take it, set content_type: json" if objection.status == 415 and http.set is None else ""
        return _UnqueuedAnswer(f"{objection.status}: {objection.title}{way_out}")
    if rules.signed:
        kept = {name: value for name, value in message.headers.items() if not is_message_header(name)}
        message = replace(message, headers=kept)
    if http.set is not None:
        return _check_token(message, http.set)
    if http.sns is not None:
        return _check_sns(message, http.sns)
    if find_grid_code(message.body) is not None:
        return _UnqueuedAnswer("200 with its code: Event Grid asks whether its events are wanted", refused=False)
    return message


def _check_token(message: Message, settings: SetSettings) -> Message | _UnqueuedAnswer:
    """Check a token or its queued claims as of its time of issue, since it may have expired."""
    signed = message.content_type is not None or message.body.lstrip()[:1] != b"{"
    try:
        claims = parse_claims(message.body, MAX_EVENT, signed=signed)
    except MalformedEvent as malformed:
        return _UnqueuedAnswer(f"400: invalid_request: {malformed.mistakes[0].text}")
    if not isinstance(claims, dict):
        return _UnqueuedAnswer("400: invalid_request: its claims are not an object")
    made_at = claims.get("iat")
    now = float(made_at) if isinstance(made_at, int | float) else time.time()
    refusal = check_claims(claims, issuer=settings.issuer, audience=settings.audience, now=now)
    if refusal is not None:
        return _UnqueuedAnswer(f"400: {refusal.err}: {refusal.description}")
    return replace(message, content_type=SET_TYPE) if signed else message


def _check_sns(message: Message, settings: SnsSettings) -> Message | _UnqueuedAnswer:
    members = read_members(message.body, SnsTopic(settings.topic_arn))
    if isinstance(members, SnsRefusal):
        return _UnqueuedAnswer(f"401: The message is not accepted: {members.text}")
    if members.kind != "Notification":
        return _UnqueuedAnswer("200: it is about the subscription, not an event", refused=False)
    return replace(message, body=to_json(members.signed), content_type="application/json")


def _find_signature_error(message: Message, http: SourceHttpSettings) -> str | None:
    """Return the errors of an SNS message's signature that `_check_sns` ignores; None if there are none."""
    members = None if http.sns is None else read_sns(message.body, SnsTopic(http.sns.topic_arn))
    return members.text if isinstance(members, SnsRefusal) else None
