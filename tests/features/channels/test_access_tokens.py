"""Access tokens for the proof of a revocation: the token endpoint is hostile, and nothing of it is stored or shown."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from notifier.delivery.line_and_parking import AdmittedDelivery
from notifier.delivery.ports import ChannelTools, Tools
from notifier.delivery.verdict import Dead, Defer, Done, RetryAt
from notifier.features.channels.access_tokens import AccessTokens
from notifier.features.channels.channel_settings import GlobalTokenRevocationSettings, ProofSettings
from notifier.features.channels.channels_feature import CHANNELS
from notifier.model.client import Client, Route
from notifier.model.errors import InternalFault
from notifier.model.message import Lane
from notifier.model.outcome import Cause
from notifier.network.http.transport import HttpTransport
from tests.features.channels.channel_harness import ISS, PlainSigner, client, delivery
from tests.features.channels.receivers.fake_issuer import FakeIssuer, PublishedKeys
from tests.features.channels.receivers.fake_revocation_receiver import REVOCATION_RULES, FakeRevocationReceiver
from tests.features.channels.receivers.fake_token_endpoint import (
    CLAMPED,
    GOOD,
    UNUSABLE,
    FakeTokenEndpoint,
    TokenAnswer,
)
from tests.features.channels.receivers.signing import USERS, jwks
from tests.network.http.http_requests import LOOPBACK
from tests.support.no_pauses import NoPauses
from tests.support.one_attempt import DecidedAttempt, attempt
from tests.system.waiting import PATIENCE

SECRET = "s3cret of the t/ken endpoint"


class SteadyClock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@dataclass
class Harness:
    """A token endpoint, and the tokens of a worker for one client of it."""

    endpoint: FakeTokenEndpoint
    tokens: AccessTokens
    clock: SteadyClock
    client: Client
    secret: Path

    @property
    def proof(self) -> ProofSettings:
        """Return the settings of the client."""
        assert self.client.channel is not None
        settings = self.client.channel.settings
        assert isinstance(settings, GlobalTokenRevocationSettings)
        return settings.proof

    async def get(self) -> str:
        """Return a token."""
        return await self.tokens.get(self.client, self.proof)

    async def fault(self) -> str:
        """Return why there is no token."""
        with pytest.raises(InternalFault) as caught:
            await self.get()
        assert caught.value.cause is Cause.ACCESS_TOKEN
        return str(caught.value)


def of_endpoint(endpoint: FakeTokenEndpoint, secret: Path, timeout: float = 5.0, **settings: Any) -> Client:
    """Return a client whose proof is an access token of this endpoint."""
    proof = {"endpoint": endpoint.url, "client_id": "noti:fier", "client_secret": {"file": str(secret)}, "scope": "all"}
    made = client("global_token_revocation", proof=proof, **settings)
    return replace(made, route=Route(egress=LOOPBACK), timeout=timeout)


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    """Run an endpoint."""
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")
    clock = SteadyClock()
    async with FakeTokenEndpoint("noti:fier", SECRET) as endpoint:
        yield Harness(endpoint, AccessTokens(clock), clock, of_endpoint(endpoint, secret), secret)


async def test_one_token_serves_many_deliveries(harness: Harness) -> None:
    """Also at once. It is fetched again shortly before its end."""
    assert set(await asyncio.gather(*(harness.get() for _ in range(10)))) == {"access-token-1"}
    assert harness.endpoint.scope_of("access-token-1") == "all"
    harness.clock.now += 569.0
    assert await harness.get() == "access-token-1"
    harness.clock.now += 2.0
    assert await harness.get() == "access-token-2"
    assert (harness.endpoint.requests, harness.endpoint.refusals) == (2, [])


@pytest.mark.parametrize("name", CLAMPED)
async def test_life_of_a_token(harness: Harness, name: str) -> None:
    """It is used for less than the endpoint allows, and for a day at most."""
    harness.endpoint.answer = answer = CLAMPED[name]
    await harness.get()
    assert answer.lifetime_seconds is not None
    harness.clock.now += max(1.0, answer.lifetime_seconds / 2 - 1)
    await harness.get()
    assert harness.endpoint.requests == (1 if answer.lifetime_seconds > 4 else 2)
    harness.clock.now += answer.lifetime_seconds
    await harness.get()
    assert harness.endpoint.requests > 1


@pytest.mark.parametrize("name", UNUSABLE)
async def test_unusable_answers(harness: Harness, name: str) -> None:
    """No token is used, no redirect is followed, and neither secret nor token is in the text."""
    harness.endpoint.answer = UNUSABLE[name]
    if harness.endpoint.answer.hangs:
        harness.client = replace(harness.client, timeout=0.3)
    text = await harness.fault()
    assert text.startswith("no access token for client shop (proof.endpoint): ")
    assert not any(word in text for word in (SECRET, "access-token", "a\r", "tökén", "<html>"))
    assert harness.endpoint.trapped == 0
    assert len(text) < 300


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ('{{"error": "invalid_client"}}', "it answered 400 invalid_client: correct proof.client_id or its secret"),
        ('{{"error": "invalid_scope"}}', "it answered 400 invalid_scope: correct proof.scope"),
        ('{{"error": "{secret}"}}', "it answered 400"),
        ('{{"error": ["invalid_scope"]}}', "it answered 400"),
        ('["invalid_scope"]', "it answered 400"),
    ],
)
async def test_code_of_a_refusal_names_the_setting(harness: Harness, content: str, text: str) -> None:
    """Only a code of RFC 6749 §5.2: any other text may be a secret."""
    harness.endpoint.answer = TokenAnswer(text=content, status=400)
    assert (await harness.fault()).endswith(f"(proof.endpoint): {text}")


async def test_failing_endpoint_is_requested_once_a_second(harness: Harness) -> None:
    """Whatever number of deliveries waits for it."""
    harness.endpoint.answer = UNUSABLE["unavailable"]
    assert len({await harness.fault() for _ in range(20)}) == 1
    assert harness.endpoint.requests == 1
    harness.clock.now += 1.0
    await harness.fault()
    assert harness.endpoint.requests == 2
    harness.endpoint.answer = GOOD
    harness.clock.now += 1.0
    assert await harness.get() == "access-token-3"


async def test_deliveries_share_the_fault_of_one_fetch(harness: Harness) -> None:
    """A hanging endpoint holds the deliveries of its client for one timeout, whatever their number."""
    tokens = AccessTokens(count(1000.0, 2.0).__next__)  # each reading of the clock is 2 s later
    waiting = replace(harness.client, timeout=0.3)
    harness.endpoint.answer = UNUSABLE["no answer"]
    faults = await asyncio.gather(*(tokens.get(waiting, harness.proof) for _ in range(10)), return_exceptions=True)
    assert {str(fault) for fault in faults if isinstance(fault, InternalFault)} == {str(faults[0])}
    assert harness.endpoint.requests == 1


@pytest.mark.parametrize("former", [GOOD, UNUSABLE["no answer"]])
async def test_deliveries_do_not_wait_for_a_hanging_endpoint(harness: Harness, former: TokenAnswer) -> None:
    """They would use up the slots that other clients need. Its token is used if it comes at last."""
    harness.tokens = AccessTokens(harness.clock, min_wait_seconds=0.05)
    harness.endpoint.answer = former
    harness.client = replace(harness.client, timeout=5.0 if former is GOOD else 0.3)
    with suppress(InternalFault):
        await harness.get()
    harness.clock.now += 600.0
    harness.client = replace(harness.client, timeout=600.0)
    harness.endpoint.answer = UNUSABLE["no answer"]
    for _ in range(10):
        assert "has not answered yet" in await harness.fault()
    await harness.endpoint.until(lambda: harness.endpoint.requests == 2)
    harness.endpoint.answer = GOOD
    harness.endpoint.release()
    token = ""
    async with asyncio.timeout(PATIENCE):
        while not token:
            with suppress(InternalFault):
                token = await harness.get()
    assert token == "access-token-2"


async def test_slow_endpoint_is_awaited(harness: Harness) -> None:
    """Otherwise a delivery that returns after minutes would find each time that the last token is too old."""
    harness.tokens = AccessTokens(harness.clock, min_wait_seconds=0.0)
    for number in range(1, 4):
        harness.endpoint.answer = UNUSABLE["no answer"]
        waiting = asyncio.create_task(harness.get())
        await harness.endpoint.until(lambda: harness.endpoint.requests == number)  # noqa: B023
        harness.clock.now += 600.0
        harness.endpoint.answer = GOOD
        harness.endpoint.release()
        assert await waiting == f"access-token-{number}"


async def test_pause_before_a_fetch_counts_towards_the_timeout(harness: Harness) -> None:
    """A delivery whose token was refused just after its fetch is deferred within the timeout."""
    harness.client = replace(harness.client, timeout=0.3)
    harness.tokens.renewal(harness.client, await harness.get())()
    assert "0.3 s" in await harness.fault()
    assert harness.endpoint.requests == 1


async def test_end_of_one_delivery_does_not_end_the_fetch(harness: Harness) -> None:
    """The other deliveries get its token."""
    first, second = (asyncio.create_task(harness.get()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == "access-token-1"
    assert harness.endpoint.requests == 1


async def test_secret_is_read_at_each_fetch(harness: Harness) -> None:
    """A new one needs no reload. A missing file is named, not shown."""
    await harness.get()
    harness.secret.write_text("another")
    harness.endpoint.client_secret = "another"
    harness.clock.now += 600.0
    assert await harness.get() == "access-token-2"
    harness.secret.unlink()
    harness.clock.now += 600.0
    assert "secret" in await harness.fault()


async def test_egress_rules_of_the_client_apply(harness: Harness) -> None:
    """As at reload, so at each fetch: the name may lead to another address by now."""
    harness.client = replace(harness.client, route=Route())
    assert "allow_http" in await harness.fault()
    assert harness.endpoint.requests == 0


async def test_changed_settings_need_a_new_token(harness: Harness) -> None:
    """After a reload."""
    await harness.get()
    harness.client = of_endpoint(harness.endpoint, harness.secret, subject="email")
    assert await harness.get() == "access-token-1", "the proof is the same"
    other = harness.proof.model_copy(update={"scope": "other"})
    harness.clock.now += 1.0
    assert await harness.tokens.get(harness.client, other) == "access-token-2"


async def test_tokens_of_removed_clients_are_forgotten(harness: Harness) -> None:
    """An hour or two after their end. A token in use stays."""
    proofs = [harness.proof.model_copy() for _ in range(3)]
    references = [weakref.ref(proof) for proof in proofs]
    for number in range(3):
        await harness.tokens.get(replace(harness.client, client_id=f"shop-{number}"), proofs.pop(0))
        harness.clock.now += 4000.0
    gc.collect()
    assert [reference() is None for reference in references] == [True, False, False]


# ── attempts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def receiving(endpoint: FakeTokenEndpoint) -> AsyncIterator[FakeRevocationReceiver]:
    """Run a receiver that accepts the tokens of the endpoint."""
    rules = replace(REVOCATION_RULES["okta_org"], scope="all")
    async with (
        FakeIssuer(jwks, ISS) as issuer,
        FakeRevocationReceiver(
            rules, PublishedKeys(issuer), iss=ISS, client_id="shop", users=USERS, scope_of=endpoint.scope_of
        ) as receiver,
    ):
        yield receiver


@asynccontextmanager
async def attempting(harness: Harness, receiver: FakeRevocationReceiver) -> AsyncIterator[Any]:
    """Yield a function that makes one attempt at the receiver."""
    to = of_endpoint(harness.endpoint, harness.secret, uri=receiver.url, subject="email")
    channel_tools = ChannelTools(signer=PlainSigner(), clock=lambda: 1000.0, new_jti=lambda: "j")
    channels = {kind: make(channel_tools) for kind, make in CHANNELS.channels.items()}
    transport = HttpTransport()
    await transport.open()
    tools = Tools(
        channels=channels, transport=transport, clock=lambda: 1000.0, monotonic=harness.clock, jitter=lambda: 0.5,
        observe=lambda _: None,
        pauses=NoPauses(),
    )  # fmt: skip

    async def make() -> DecidedAttempt:
        return await attempt(AdmittedDelivery(delivery=delivery(), client=to, lane=Lane.EVENTS), tools)

    try:
        yield make
    finally:
        await transport.close()


async def test_refused_token_is_replaced_within_the_attempt(harness: Harness) -> None:
    """Once: a receiver that refuses the new one, too, gets no third. It is a rejection, which is retried."""
    async with receiving(harness.endpoint) as receiver, attempting(harness, receiver) as make:
        assert (await make()).verdict == Done()
        harness.endpoint.revoke_all()
        assert (await make()).verdict == Done()
        assert (receiver.statuses, harness.endpoint.requests) == ([204, 401, 204], 2)
        receiver.outage = 401
        result = await make()
        assert isinstance(result.verdict, RetryAt)
        assert (receiver.statuses[3:], harness.endpoint.requests) == ([401, 401], 3)
        receiver.outage = 403
        assert isinstance((await make()).verdict, Dead)


async def test_without_a_token_the_delivery_is_deferred(harness: Harness) -> None:
    """It is no attempt, and its age stands still."""
    async with receiving(harness.endpoint) as receiver, attempting(harness, receiver) as make:
        harness.endpoint.answer = UNUSABLE["invalid_client"]
        result = await make()
        assert isinstance(result.verdict, Defer)
        assert result.verdict.cause is Cause.ACCESS_TOKEN
        assert (result.delivery.progress.attempts, result.fact) == (0, None)
        assert result.delivery.progress.uncounted_seconds > 0
        assert not receiver.requests
