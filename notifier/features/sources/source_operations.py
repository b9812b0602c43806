"""Answer servers that verify whether a source accepts their events, and describe the routes of sources in OpenAPI."""

import json
import re
from typing import assert_never

import structlog
from aiohttp import web

from notifier.features.sources.post_rules import SET_TYPE, HttpSource
from notifier.features.sources.source_proofs import BodySignature, HeaderSecret, Proof, SetVerifier, SnsVerifier
from notifier.features.sources.source_settings import WebsubSettings
from notifier.model.printable import json_text
from notifier.network.listeners.openapi import AnswerDescription, OperationDescription
from notifier.network.listeners.operation import to_answer
from notifier.network.listeners.problem import Refusal, problem_response
from notifier.publishing.route_steps import LANES

OKTA_CHALLENGE = "x-okta-verification-challenge"
REQUEST_ORIGIN, ALLOWED_ORIGIN, ALLOWED_RATE = (
    "WebHook-Request-Origin",
    "WebHook-Allowed-Origin",
    "WebHook-Allowed-Rate",
)
_MAX_CHALLENGE_CHARACTERS = 2048
_ORIGIN = re.compile(r"[A-Za-z0-9.*:_-]{1,255}")


def answer_okta(request: web.Request, proof: Proof) -> web.Response:
    """Return Okta's challenge in the response (one-time verification). Okta sends the secret header also with this GET.

    Raises Refusal.
    """
    if not isinstance(proof, HeaderSecret) or not proof.is_valid(request.headers):
        raise proof_refusal()
    challenge = request.headers.get(OKTA_CHALLENGE)
    if not challenge:
        raise Refusal(problem_response(400, f"The header {OKTA_CHALLENGE} is missing"))
    return web.json_response({"verification": challenge}, dumps=json_text)


def answer_websub(request: web.Request, websub: WebsubSettings | None) -> web.Response:
    """Return the hub's challenge, which confirms a subscription or its end (WebSub §5.3). Raises Refusal (400, 404).

    The request is unauthenticated, and anyone who can reach the hub can cause it. The hub's events need the proof.
    """
    mode, challenge = request.query.get("hub.mode"), request.query.get("hub.challenge", "")
    has_challenge = 0 < len(challenge) <= _MAX_CHALLENGE_CHARACTERS
    if mode not in ("subscribe", "unsubscribe") or not has_challenge:
        raise Refusal(problem_response(400, "hub.mode must be subscribe or unsubscribe, and hub.challenge a text"))
    if websub is not None and request.query.getall("hub.topic", []) != [websub.topic]:
        raise Refusal(problem_response(404, f"{mode}: hub.topic is not http.websub.topic of the source"))
    if mode == "unsubscribe" and (websub is None or websub.unsubscribe == "refuse"):
        title = "unsubscribe: the subscription goes on; http.websub.unsubscribe: allow lets it end"
        raise Refusal(problem_response(404, title))
    return web.Response(text=challenge, headers={"X-Content-Type-Options": "nosniff"})


def answer_options(request: web.Request, source: HttpSource, body: bytes) -> web.Response:
    """Permit an authenticated sender of CloudEvents to send at any rate (CloudEvents HTTP webhooks §4).

    The header `WebHook-Request-Callback` is ignored. Raises Refusal (400, 401, 405).
    """
    match source.proof:
        case HeaderSecret():
            is_authentic = source.proof.is_valid(request.headers)
        case BodySignature():
            is_authentic = source.proof.is_valid(request.headers, body)
        case SetVerifier() | SnsVerifier():
            raise method_refusal()
        case _:
            assert_never(source.proof)
    if not is_authentic:
        raise proof_refusal()
    origin = request.headers.get(REQUEST_ORIGIN, "")
    if _ORIGIN.fullmatch(origin) is None:
        raise Refusal(problem_response(400, f"The header {REQUEST_ORIGIN} must name the sender"))
    structlog.get_logger().info("sender_allowed", source=source.name, origin=origin)
    return web.Response(headers={"Allow": "POST", ALLOWED_ORIGIN: origin, ALLOWED_RATE: "*"})


def method_refusal() -> Refusal:
    """Return the refusal of a verification request that this source's server does not send."""
    return Refusal(problem_response(405, "Events are sent by POST", headers={"Allow": "POST"}))


def proof_refusal(title: str = "The proof of the source is missing or wrong") -> Refusal:
    """Return the refusal of a request with a missing or wrong proof."""
    headers = {"WWW-Authenticate": "Source"}  # a 401 must name a scheme (RFC 9110 §11.6.1)
    return Refusal(problem_response(401, title, headers=headers))


_PROBLEMS = {
    400: "The request is malformed, or the token is not accepted.",
    401: "The proof of the source is missing or wrong.",
    404: "No source of this name takes events over HTTP.",
    408: "The body did not come in time.",
    413: "The event is too large.",
    415: "The content type is not supported, or the body is compressed.",
    503: "The queue or the keys of the token's issuer are unavailable. Send the event again.",
}
RECORDED_STATUSES = tuple(map(str, sorted({202, 405, 429, 500, *_PROBLEMS})))
"""The statuses of answers to a configured source."""

POST_OPERATION = OperationDescription(
    summary="Publish an event in the words of a source. Its proof stands in place of a token.",
    path={"source": {"type": "string", "description": "Its name under `sources`."}},
    query={"lane": {"type": "string", "enum": list(LANES), "default": "events"}},
    body={
        "application/json": {},
        "application/cloudevents+json": {},
        "application/cloudevents-batch+json": {"type": "array"},
        SET_TYPE: {"type": "string"},
    },
    answers={
        200: AnswerDescription(
            text="The message was about a subscription, or verified that events are wanted here. Nothing is published.",
            schema={"type": "object"},
        ),
        202: to_answer("The event is durable. No body if it was a Security Event Token.", id=str),
        400: to_answer("RFC 8935: the token is not accepted.", err=str, description=str),
    },
    problems=_PROBLEMS,
)
GET_OPERATION = OperationDescription(
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

OPTIONS_OPERATION = OperationDescription(
    summary="Answer a sender of CloudEvents that asks whether it may send.",
    path={"source": {"type": "string", "description": "Its name under `sources`."}},
    query={"lane": {"type": "string", "enum": list(LANES), "default": "events"}},
    answers={
        200: AnswerDescription(
            text="It may.",
            headers={ALLOWED_ORIGIN: f"The value of {REQUEST_ORIGIN}.", ALLOWED_RATE: "How much it may send: `*`."},
        )
    },
    problems={
        **{status: _PROBLEMS[status] for status in (401, 404, 408, 413)},
        400: f"The header {REQUEST_ORIGIN} is missing.",
        405: "The source's server sends no such request.",
    },
)


def reason_of(answer: str) -> str:
    """Return the title of a problem, or the error and description of RFC 8935; the text itself if it is neither."""
    try:
        document = json.loads(answer)
        return str(document.get("title") or f"{document['err']}: {document['description']}")
    except (ValueError, KeyError):
        return answer
