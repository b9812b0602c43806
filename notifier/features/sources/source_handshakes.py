"""Answers the requests by which a server verifies that its events are wanted here. Nothing of them is published."""

from aiohttp import web

from notifier.features.sources.source_proofs import HeaderSecret, Proof
from notifier.model.printable import json_text
from notifier.network.listeners.problem import Refusal, problem

OKTA_CHALLENGE = "x-okta-verification-challenge"
_LONGEST_CHALLENGE = 2048


def answer_okta(request: web.Request, proof: Proof) -> web.Response:
    """Give the challenge back. Okta sends the secret here too; without a secret in a header nothing can be proved."""
    if not isinstance(proof, HeaderSecret) or not proof.holds(request.headers):
        raise unproven()
    challenge = request.headers.get(OKTA_CHALLENGE)
    if not challenge:
        raise Refusal(problem(400, f"The header {OKTA_CHALLENGE} is missing"))
    return web.json_response({"verification": challenge}, dumps=json_text)


def answer_websub(request: web.Request) -> web.Response:
    """Give the challenge back (WebSub §5.3). No proof is sent with it. What a hub sends afterwards needs the proof."""
    challenge = request.query.get("hub.challenge", "")
    if (
        request.query.get("hub.mode") not in ("subscribe", "unsubscribe")
        or not 0 < len(challenge) <= _LONGEST_CHALLENGE
    ):
        raise Refusal(problem(400, "hub.mode must be subscribe or unsubscribe, and hub.challenge a text"))
    return web.Response(text=challenge, headers={"X-Content-Type-Options": "nosniff"})


def unproven(title: str = "The proof of the source is missing or wrong") -> Refusal:
    """Return the refusal of whoever gives no proof, or a wrong one."""
    headers = {"WWW-Authenticate": "Source"}  # a 401 must name a scheme (RFC 9110 §11.6.1)
    return Refusal(problem(401, title, headers=headers))
