"""`/v1/sign-in`: where operators sign in, and the exchange of a code, with all that may go wrong."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from notifier.features.console.sign_in_provider import SignInProvider
from notifier.features.console.sign_in_routes import MAX_EXCHANGES, MAX_REQUESTS_PER_ROUTE, SignInRoutes
from notifier.features.console.sign_in_tokens import MAX_SKEW_SECONDS, SignInTokens, half_hash
from notifier.network.http.issuer_document import DocumentIssue
from notifier.network.listeners.problem import answer_refusals
from tests.features.console.console_provider import (
    CLIENT,
    CODE,
    NONCE,
    NOW,
    REDIRECT,
    VERIFIER,
    ConsoleProvider,
    live,
    oidc,
    section,
    written,
)
from tests.system.waiting import until
from tests.tokens.transmitter import key, public

EXAMPLE = "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y"  # the access token of OpenID Connect Core, A.3


def half_of(hashed: str) -> str:
    """What `at_hash` of the example is by this hash."""
    digest = hashlib.new(hashed, EXAMPLE.encode()).digest()
    return base64.urlsafe_b64encode(digest[: len(digest) // 2]).decode().rstrip("=")


GIVEN = {"code": CODE, "code_verifier": VERIFIER, "redirect_uri": REDIRECT, "nonce": NONCE}


@pytest.fixture
async def provider() -> AsyncIterator[ConsoleProvider]:
    """It exchanges one code."""
    async with ConsoleProvider() as provider:
        yield provider


@asynccontextmanager
async def asking(folder: Path, raw: Mapping[str, Any]) -> AsyncIterator[TestClient[Any, Any]]:
    """Serve the routes."""
    configuration = live(written(folder, raw))
    signed_in = SignInTokens(section(configuration), configuration, lambda _: "0123", lambda: NOW, lambda: 1000.0)
    app = web.Application(middlewares=[answer_refusals])
    app.add_routes(SignInRoutes(signed_in).routes())
    async with TestClient(TestServer(app)) as client:
        yield client
    await signed_in.aclose()


async def exchanged(client: TestClient[Any, Any], **changes: Any) -> tuple[int, Any]:
    """Status and answer."""
    async with client.post("/v1/sign-in/token", json={**GIVEN, **changes}) as answer:
        return answer.status, await answer.json()


async def test_a_page_learns_where_to_sign_in(tmp_path: Path, provider: ConsoleProvider) -> None:
    """The provider's metadata are read once for many."""
    async with asking(tmp_path, oidc(provider.base)) as client:
        for _ in range(3):
            answer = await (await client.get("/v1/sign-in")).json()
            assert answer == {
                "oidc": {
                    "issuer": provider.base,
                    "client_id": CLIENT,
                    "scope": "openid",
                    "authorization_endpoint": f"{provider.base}/authorize",
                    "problem": None,
                }
            }
    assert len(provider.asked) == 1


async def test_without_a_provider_there_is_no_sign_in() -> None:
    """By a token alone."""
    app = web.Application(middlewares=[answer_refusals])
    app.add_routes(SignInRoutes(None).routes())
    async with TestClient(TestServer(app)) as client:
        assert await (await client.get("/v1/sign-in")).json() == {"oidc": None}
        assert (await exchanged(client))[0] == 404


@pytest.mark.parametrize(
    ("metadata", "phrase"),
    [
        ({"issuer": "https://evil.example.com"}, "name the issuer 'https://evil.example.com'"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "no authorization_endpoint"),
        ({"authorization_endpoint": "http://login.example.com/auth"}, "no authorization_endpoint"),
        ({"authorization_endpoint": None}, "no authorization_endpoint"),
        ({"token_endpoint": ["https://login.example.com"]}, "no token_endpoint"),
    ],
)
async def test_metadata_that_lead_astray_lead_nowhere(
    tmp_path: Path, provider: ConsoleProvider, metadata: dict[str, Any], phrase: str
) -> None:
    """The page shows the error, and has a field for a token."""
    provider.metadata = metadata
    async with asking(tmp_path, oidc(provider.base)) as client:
        answer = (await (await client.get("/v1/sign-in")).json())["oidc"]
        assert answer["authorization_endpoint"] is None
        assert phrase in answer["problem"]
        assert (await exchanged(client))[0] == 502


async def test_an_unavailable_provider_is_reported(tmp_path: Path) -> None:
    """With why."""
    async with asking(tmp_path, oidc("http://127.0.0.1:1")) as client:
        answer = (await (await client.get("/v1/sign-in")).json())["oidc"]
        assert "could not be read" in answer["problem"]


async def test_a_code_becomes_a_token_of_the_api(tmp_path: Path, provider: ConsoleProvider) -> None:
    """Nothing else of the provider's answer reaches the browser."""
    async with asking(tmp_path, oidc(provider.base)) as client:
        status, answer = await exchanged(client)
        assert (status, answer.keys(), answer["expires_at"]) == (200, {"access_token", "expires_at"}, NOW + 300)


@pytest.mark.parametrize(
    "changes", [{"code": "another"}, {"code_verifier": "another"}, {"redirect_uri": "https://evil.example.com/"}]
)
async def test_a_refusal_of_the_provider_is_a_refusal(
    tmp_path: Path, provider: ConsoleProvider, changes: dict[str, str]
) -> None:
    """With the code of its error, and no word of it."""
    async with asking(tmp_path, oidc(provider.base)) as client:
        status, answer = await exchanged(client, **changes)
        assert (status, answer["title"]) == (
            400,
            "The provider gives no token: its token endpoint answered 400 (invalid_grant)",
        )


@pytest.mark.parametrize(
    ("provided", "status", "phrase"),
    [
        ({"access": {"aud": CLIENT}}, 401, "aud does not name this API"),
        ({"access": {"groups": ["staff"]}}, 403, "You are signed in, but nothing in groups"),
        ({"identity": {"nonce": "another"}}, 401, "nonce is another one. Sign in again"),
        ({"identity": {"nonce": None}}, 401, "nonce is another one"),
        ({"identity": {"aud": "another"}}, 401, "aud does not name the console"),
        ({"identity": {"aud": [CLIENT, "another"]}}, 401, "azp is another client"),
        ({"identity": {"azp": "another"}}, 401, "azp is another client"),
        ({"identity": {"iss": "https://evil.example.com"}}, 401, "iss is another issuer"),
        ({"identity": {"exp": NOW - MAX_SKEW_SECONDS}}, 401, "it has expired; compare the clocks"),
        ({"identity": {"exp": None}}, 401, "iat and exp must be numbers"),
        ({"identity": {"iat": None}}, 401, "iat and exp must be numbers"),
        ({"identity": {"iat": NOW + MAX_SKEW_SECONDS + 1}}, 401, "is in the future"),
        ({"identity": {"nbf": NOW + MAX_SKEW_SECONDS + 1}}, 401, "is in the future"),
        ({"identity": {"at_hash": half_hash("another", "ES256")}}, 401, "at_hash is that of another access token"),
        ({"identity": {"c_hash": half_hash("another", "ES256")}}, 401, "c_hash is that of another code"),
        ({"answer": {}}, 502, "gave no access_token with an id_token"),
        ({"answer": []}, 502, "gave no access_token with an id_token"),
        ({"opaque": "a.\ud800.c"}, 401, "iss is another issuer"),
        ({"keys": [public(key("P-256", "other"))]}, 401, "Sign in again"),
        ({"keys": "none"}, 503, "cannot be read"),
    ],
)
async def test_a_token_that_the_api_would_not_take_is_not_given(
    tmp_path: Path, provider: ConsoleProvider, provided: dict[str, Any], status: int, phrase: str
) -> None:
    """A wrong setting at the provider shows at the sign-in."""
    for name, value in provided.items():
        setattr(provider, name, value)
    async with asking(tmp_path, oidc(provider.base)) as client:
        answer = await exchanged(client)
        assert answer[0] == status, answer
        assert phrase in answer[1]["title"]
        assert "raw-" not in str(answer)


@pytest.mark.parametrize(
    "identity",
    [
        {"aud": [CLIENT]},
        {"aud": [CLIENT, "another"], "azp": CLIENT},
        {"azp": CLIENT, "sub": "raw-pairwise"},
        {"exp": NOW - MAX_SKEW_SECONDS + 1, "iat": NOW - 5000},
        {"at_hash": half_hash("a.b.c", "ES256"), "c_hash": half_hash(CODE, "ES256")},
    ],
)
async def test_an_id_token_of_this_sign_in_is_taken(
    tmp_path: Path, provider: ConsoleProvider, identity: dict[str, Any]
) -> None:
    """Whatever its `sub` is, and within the difference of two clocks."""
    provider.identity = identity
    provider.opaque = "a.b.c" if "at_hash" in identity else ""
    async with asking(tmp_path, oidc(provider.base)) as client:
        status, answer = await exchanged(client)
        assert status == 200 or "iss is another issuer" in answer["title"], answer  # of the access token a.b.c
        assert "ID token" not in answer.get("title", "")


@pytest.mark.parametrize(
    ("alg", "expected"),
    [
        ("RS256", "77QmUPtjPfzWtF2AnpK9RQ"),
        ("PS384", half_of("sha384")),
        ("ES512", half_of("sha512")),
        ("EdDSA", half_of("sha512")),
        ("Ed25519", half_of("sha512")),
    ],
)
def test_at_hash_is_of_the_algorithm(alg: str, expected: str) -> None:
    """OpenID Connect Core, A.3, has the first; Ed25519 has SHA-512 in it."""
    assert half_hash(EXAMPLE, alg) == expected


async def test_an_opaque_access_token_is_named(tmp_path: Path, provider: ConsoleProvider) -> None:
    """Some providers give these for their own use."""
    async with asking(tmp_path, oidc(provider.base)) as client:
        provider.opaque = "0paque"
        status, answer = await exchanged(client)
        assert (status, answer["title"]) == (401, "The provider's access token is not a JWT (RFC 9068)")


@pytest.mark.parametrize("body", ["", "[]", "{", '{"code": "a"}', "[" * 100_000])
async def test_a_malformed_request_is_refused(tmp_path: Path, provider: ConsoleProvider, body: str) -> None:
    """Before the provider is asked."""
    async with asking(tmp_path, oidc(provider.base)) as client:
        headers = {"Content-Type": "application/json"}
        async with client.post("/v1/sign-in/token", data=body, headers=headers) as answer:
            assert answer.status == 400
        assert (await exchanged(client, code="a\nb"))[0] == 400
        assert (await exchanged(client, nonce="\ud800"))[0] == 400
        assert (await exchanged(client, nonce=7))[0] == 400
        async with client.post("/v1/sign-in/token", data=GIVEN) as answer:
            assert answer.status == 415, "a form, as another site can send it"
    assert not provider.asked


async def test_a_flood_of_codes_reaches_the_provider_slowly(tmp_path: Path, provider: ConsoleProvider) -> None:
    """A few at a time; the rest are refused at once."""
    async with asking(tmp_path, oidc(provider.base)) as client:
        provider.going_on.clear()
        async with asyncio.TaskGroup() as group:
            first = [group.create_task(exchanged(client)) for _ in range(MAX_EXCHANGES)]
            await provider.until(lambda: provider.asked.count("/token") == MAX_EXCHANGES)
            assert (await exchanged(client))[0] == 503
            provider.going_on.set()
        assert [task.result()[0] for task in first] == [200] * MAX_EXCHANGES


async def test_slow_bodies_of_strangers_take_no_place_of_publishers(tmp_path: Path, provider: ConsoleProvider) -> None:
    """So many wait for theirs; the next is refused at once, and whoever only asks where to sign in is answered."""
    going_on = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await going_on.wait()
        yield b"}"

    async with asking(tmp_path, oidc(provider.base)) as client, asyncio.TaskGroup() as group:
        headers = {"Content-Type": "application/json"}
        posts = [client.post("/v1/sign-in/token", data=slow(), headers=headers) for _ in range(MAX_REQUESTS_PER_ROUTE)]
        waiting = [group.create_task(_status(post)) for post in posts]
        await until(lambda: exchanged(client), lambda answer: answer[0] == 429)
        assert (await client.get("/v1/sign-in")).status == 200
        going_on.set()
    assert [task.result() for task in waiting] == [400] * MAX_REQUESTS_PER_ROUTE


async def test_a_provider_that_hangs_takes_no_place_of_publishers(
    tmp_path: Path, provider: ConsoleProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many wait for its metadata; the next is refused at once."""
    going_on = asyncio.Event()

    async def endpoints(_provider: SignInProvider) -> DocumentIssue:
        await going_on.wait()
        return DocumentIssue(text="away")

    monkeypatch.setattr(SignInProvider, "endpoints", endpoints)
    async with asking(tmp_path, oidc(provider.base)) as client, asyncio.TaskGroup() as group:
        waiting = [group.create_task(_status(client.get("/v1/sign-in"))) for _ in range(MAX_REQUESTS_PER_ROUTE + 1)]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result() for task in done] == [429]
        going_on.set()
    assert sorted(task.result() for task in waiting) == [200] * MAX_REQUESTS_PER_ROUTE + [429]


async def _status(asked: AbstractAsyncContextManager[Any]) -> int:
    async with asked as answer:
        return int(answer.status)
