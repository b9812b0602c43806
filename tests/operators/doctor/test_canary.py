"""A token for nobody: what it carries, and how the answer is explained."""

import json
from collections.abc import Mapping

import pytest

from notifier.delivery.channels import BackChannel
from notifier.model.client import Algorithm, Client
from notifier.model.errors import OurFault
from notifier.model.outcome import Answer, Break, Cause, Reason, StaleConnection, Wire
from notifier.model.request import Request
from notifier.operators.doctor.canary import NOBODY, CanaryTools, send_canary
from notifier.operators.doctor.doctor import Finding, Severity


class Receiver:
    """The transport and the signer: the token is its claims."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.claims: dict[str, object] = {}
        self.broken = False

    async def sign(self, _iss: str, _alg: Algorithm, _typ: str | None, claims: Mapping[str, object]) -> str:
        if self.broken:
            raise OurFault(Cause.SIGNING, "no key is due")
        return json.dumps(claims)

    async def post(self, request: Request) -> Wire:
        self.claims = json.loads(request.secret)
        return self.wire


async def send(receiver: Receiver, **more: object) -> Finding:
    uri = more.pop("uri", "https://shop.example/out")
    client = Client(iss="https://id.example", client_id="shop", backchannel_logout_uri=uri, **more)  # type: ignore[arg-type]
    tools = CanaryTools(
        channel=BackChannel(receiver, clock=lambda: 1000.0, new_jti=lambda: "f00d"),
        transport=receiver,
        new_id=lambda: "f00d",
    )
    [found] = await send_canary(client, tools)
    return found


async def test_its_user_and_session_cannot_exist() -> None:
    """Both are named, so that no receiver ends all sessions of anybody (B13), of a pairwise client too."""
    receiver = Receiver(Answer(status=204))
    found = await send(receiver, pairwise=True)
    assert found.level is Severity.OK
    assert receiver.claims["sub"] == receiver.claims["sid"] == f"{NOBODY}f00d"
    assert "f00d" in found.text


@pytest.mark.parametrize(
    ("wire", "preset", "level", "words"),
    [
        (
            Answer(status=400, text="invalid_request"),
            "express_openid_connect",
            Severity.WARNING,
            "exactly one algorithm",
        ),
        (Answer(status=400), "nextcloud", Severity.FAILED, "never an unknown session"),
        (Answer(status=400), None, Severity.WARNING, "name its preset"),
        (Answer(status=302), None, Severity.FAILED, "never followed"),
        (Answer(status=403), None, Severity.FAILED, "sign-in"),
        (Answer(status=404), None, Severity.FAILED, "backchannel_logout_uri"),
        (Answer(status=415), None, Severity.FAILED, "its log"),
        (Answer(status=500), "spring", Severity.FAILED, "JWK Set"),
        (Break(reason=Reason.TLS, ambiguous=False, text="certificate: expired"), None, Severity.FAILED, "renew"),
        (StaleConnection(), None, Severity.FAILED, "log"),
    ],
)
async def test_answers_are_explained(wire: Wire, preset: str | None, level: Severity, words: str) -> None:
    """By the client's preset, where it names one."""
    found = await send(Receiver(wire), preset=preset)
    assert found.level is level
    assert words in found.advice


async def test_what_cannot_be_sent_is_said() -> None:
    """No URI, or no key that is due."""
    assert (await send(Receiver(Answer(status=200)), uri=None)).level is Severity.FAILED
    receiver = Receiver(Answer(status=200))
    receiver.broken = True
    assert "no key is due" in (await send(receiver)).text
