"""Describes the routes of sources, for the document of the API."""

from notifier.features.sources.post_rules import SET_KIND
from notifier.features.sources.source_handshakes import ALLOWED_ORIGIN, ALLOWED_RATE, ASKING_ORIGIN, OKTA_CHALLENGE
from notifier.network.listeners.openapi import AnswerDescription, OperationDescription
from notifier.publishing.route_steps import LANES

_PROBLEMS = {
    400: "The request is malformed, or the token is not accepted.",
    401: "The proof of the source is missing or wrong.",
    404: "No source of this name takes events over HTTP.",
    408: "The body did not come in time.",
    413: "The event is too large.",
    415: "The content type is not supported, or the body is compressed.",
    503: "The queue is away, or the keys of the token's issuer cannot be read. Send the event again.",
}
_SET_ERROR = {
    "type": "object",
    "required": ["err", "description"],
    "properties": {"err": {"type": "string"}, "description": {"type": "string"}},
}
POST = OperationDescription(
    summary="Publish an event in the words of a source. Its proof stands in place of a token.",
    path={"source": {"type": "string", "description": "Its name under `sources`."}},
    query={"lane": {"type": "string", "enum": list(LANES), "default": "events"}},
    body={
        "application/json": {},
        "application/cloudevents+json": {},
        "application/cloudevents-batch+json": {"type": "array"},
        SET_KIND: {"type": "string"},
    },
    answers={
        200: AnswerDescription(
            text="It told of a subscription, or asked whether events are wanted here. Nothing is published.",
            schema={"type": "object"},
        ),
        202: AnswerDescription(
            text="The event is durable. No body if it was a Security Event Token.",
            schema={"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}},
        ),
        400: AnswerDescription(text="RFC 8935: the token is not accepted.", schema=_SET_ERROR),
    },
    problems=_PROBLEMS,
)
GET = OperationDescription(
    summary="Answer the request by which a server verifies that its events are wanted here.",
    path={"source": {"type": "string", "description": "Its name under `sources`."}},
    query={name: {"type": "string"} for name in ("hub.mode", "hub.topic", "hub.challenge")},
    foreign_query=True,
    answers={
        200: AnswerDescription(
            text=f"Preset okta_hook: the value of the header {OKTA_CHALLENGE}. Preset wso2: hub.challenge, as text.",
            schema={"type": "object"},
        )
    },
    problems={
        401: _PROBLEMS[401],
        404: "No source of this name takes events over HTTP, or a WebSub hub verifies an unwanted subscription.",
        400: "The challenge is missing.",
        405: "The source's server sends no such request.",
    },
)

OPTIONS = OperationDescription(
    summary="Answer a sender of CloudEvents that asks whether it may send.",
    path={"source": {"type": "string", "description": "Its name under `sources`."}},
    query={"lane": {"type": "string", "enum": list(LANES), "default": "events"}},
    answers={
        200: AnswerDescription(
            text="It may.",
            headers={ALLOWED_ORIGIN: f"The value of {ASKING_ORIGIN}.", ALLOWED_RATE: "How much it may send: `*`."},
        )
    },
    problems={
        **{status: _PROBLEMS[status] for status in (401, 404, 408, 413)},
        400: f"The header {ASKING_ORIGIN} is missing.",
        405: "The source's server sends no such request.",
    },
)
