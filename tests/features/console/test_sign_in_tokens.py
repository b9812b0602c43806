"""Signing in at a provider: its settings, what the doctor reports, and which access tokens are accepted."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import OctKey

from notifier.configuration.loading import load
from notifier.features import FEATURES
from notifier.features.console.sign_in_provider import SETTING, sign_in_checks
from notifier.features.console.sign_in_tokens import (
    MAX_CACHED_TOKENS,
    MAX_LIFETIME_SECONDS,
    MAX_SKEW_SECONDS,
    SignInTokens,
)
from notifier.model.errors import ConfigurationError
from notifier.network.http.issuer_documents import DocumentReader
from notifier.network.listeners.problem import Refusal
from notifier.settings.api_tokens import ApiToken
from tests.features.console.console_provider import AUDIENCE, CLIENT, NOW, ConsoleProvider, live, oidc, section, written
from tests.tokens.key_folder import ISS, OTHER
from tests.tokens.transmitter import key, public, shared_secret

# ── The section `api.console.oidc`: what is refused, and that it closes the API ───────────────────────────────────


ISSUER = "https://login.example.com/realms/staff"


@pytest.mark.parametrize(
    ("changes", "phrase"),
    [
        ({"issuer": "http://login.example.com"}, "https://"),
        ({"issuer": "https://*.example.com"}, "one host"),
        ({"client_id": None}, "client_id"),
        ({"audience": ""}, "audience"),
        ({"audience": CLIENT, "accept_typ_jwt": True}, "audience must not be client_id"),
        ({"scopes_claim": []}, "scopes_claim"),
        ({"map": {}}, "map"),
        ({"map": {"sre": ["write"]}}, "map.sre"),
        ({"map": {"idp": ["publish"]}}, "map.idp"),
        ({"scope": "profile"}, "scope: must begin with openid"),
        ({"accept_typ_jwt": "maybe"}, "accept_typ_jwt: must be true or false"),
        ({"discovery": "login.example.com"}, "discovery"),
    ],
)
def test_a_mistake_names_the_setting(tmp_path: Path, changes: dict[str, Any], phrase: str) -> None:
    """Before anybody signs in."""
    with pytest.raises(ConfigurationError) as refused:
        load(written(tmp_path, oidc(ISSUER, **changes)), {}, FEATURES)
    [mistake] = refused.value.mistakes
    assert str(mistake).startswith("api.console.oidc")
    assert phrase in str(mistake)


def test_it_is_for_a_console_that_is_served(tmp_path: Path) -> None:
    """Else the API would take tokens that nobody can get."""
    path = written(tmp_path, None, console={"enabled": False, "oidc": oidc(ISSUER)})
    with pytest.raises(ConfigurationError, match="enabled"):
        load(path, {}, FEATURES)


def test_with_a_provider_every_request_needs_a_token(tmp_path: Path) -> None:
    """The freedom of loopback ends, and other machines may reach the listener without a file of tokens."""
    assert live(written(tmp_path, oidc(ISSUER))).tokens() == ()
    assert live(written(tmp_path, oidc(ISSUER), listen="0.0.0.0:8080")).tokens() == ()
    assert live(written(tmp_path, None)).tokens() is None
    was = live(path := written(tmp_path, oidc(ISSUER)))
    written(tmp_path, None)
    assert was.reload(requested=True)
    assert was.tokens() == (), f"{path} without it opens nothing before a restart"
    with pytest.raises(ConfigurationError, match="tokens_file is required"):
        load(written(tmp_path, None, listen="0.0.0.0:8080"), {}, FEATURES)


# ── The doctor's findings on the provider at which operators sign in ──────────────────────────────────────────────


async def findings_of(folder: Path, section: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Return level and text of each finding of the doctor."""
    reader = DocumentReader()
    checks = list(sign_in_checks(live(written(folder, section)).current, reader))
    findings = [finding for check in checks for finding in await check.run()]
    await reader.close()
    assert {finding.subject for finding in findings} <= {SETTING}
    return [(finding.level.value, finding.text) for finding in findings]


async def test_a_good_provider_has_two_lines(tmp_path: Path) -> None:
    """Where they sign in, and how many keys there are."""
    async with ConsoleProvider() as provider:
        found = await findings_of(tmp_path, oidc(provider.base))
    assert found == [
        ("ok", f"operators sign in at {provider.base}/authorize"),
        ("ok", "1 key for its tokens can be read"),
    ]


@pytest.mark.parametrize(
    ("provided", "text"),
    [
        ({"metadata": {"issuer": "https://other.example.com"}}, "name the issuer 'https://other.example.com'"),
        ({"metadata": {"token_endpoint": None}}, "name no token_endpoint"),
        ({"metadata": {"jwks_uri": None}}, "name no jwks_uri"),
        ({"keys": []}, "has no key that verifies signatures"),
    ],
)
async def test_a_fault_of_the_provider_is_a_finding(tmp_path: Path, provided: Mapping[str, Any], text: str) -> None:
    """Before an operator meets it in an incident."""
    async with ConsoleProvider() as provider:
        for name, value in provided.items():
            setattr(provider, name, value)
        found = await findings_of(tmp_path, oidc(provider.base))
    assert found[-1][0] == "failed"
    assert text in found[-1][1]


# ── Which access tokens of the provider the API accepts, and their scopes: each rule broken once ──────────────────


EVENT = "http://schemas.openid.net/event/backchannel-logout"


@pytest.fixture
async def provider() -> AsyncIterator[ConsoleProvider]:
    """It publishes its keys."""
    async with ConsoleProvider() as provider:
        yield provider


class Judge:
    """Judges tokens of a provider, at a time that a test holds."""

    def __init__(self, folder: Path, provider: ConsoleProvider, **changes: Any) -> None:
        self.now, self.monotonic = NOW, 1000.0
        self.provider = provider
        configuration = live(written(folder, oidc(provider.base, **changes)))
        self.signed_in = SignInTokens(
            section(configuration),
            configuration,
            lambda text: f"<{len(text)}>",
            lambda: self.now,
            lambda: self.monotonic,
        )

    async def token(self, bearer: str | None = None, **claims: Any) -> ApiToken:
        """What it may do, if it is taken."""
        token = await self.signed_in.authenticate_bearer(self.provider.token(**claims) if bearer is None else bearer)
        assert token is not None
        return token

    async def result_of(self, bearer: str | None = None, **claims: Any) -> str:
        """Return `taken`, or the status of the refusal with its title."""
        try:
            await self.token(bearer, **claims)
        except Refusal as refusal:
            text = f"{refusal.response.status} {refusal.response.text}"
            assert "raw-" not in text
            return text
        return "taken"


@pytest.fixture
def judge(tmp_path: Path, provider: ConsoleProvider) -> Judge:
    """By the plain section."""
    return Judge(tmp_path, provider)


async def test_a_good_token_has_the_scopes_of_its_roles(judge: Judge) -> None:
    """Its bearer has a hash for a name, and it counts for a minute longer than its `exp`."""
    sre = await judge.token()
    assert sre.scopes == {"read", "repair"}
    assert (sre.issuers, sre.expires) == (None, NOW + 300 + MAX_SKEW_SECONDS)
    assert sre.name.startswith("user <")
    assert (await judge.token(groups=["support"])).scopes == {"read"}
    assert (await judge.token(groups="support")).scopes == {"read"}
    assert (await judge.token(client_id=None, azp=CLIENT, aud=[AUDIENCE, "account"])).scopes == {"read", "repair"}
    assert "raw-" not in repr(sre)


@pytest.mark.parametrize(
    ("claims", "phrase"),
    [
        ({"iss": "https://evil.example.com"}, "iss is another issuer"),
        ({"iss": None}, "iss is another issuer"),
        ({"aud": CLIENT}, "aud does not name this API"),
        ({"aud": None}, "aud does not name this API"),
        ({"aud": [[AUDIENCE], 5]}, "aud does not name this API"),
        ({"client_id": "another"}, "another client than the console"),
        ({"client_id": "another", "azp": CLIENT}, "another client than the console"),
        ({"client_id": None}, "another client than the console"),
        ({"events": {EVENT: {}}}, "a logout token is not an access token"),
        ({"events": None, "at_hash": "x"}, "an ID token is not an access token"),
        ({"sub": None}, "sub is missing"),
        ({"sub": ""}, "sub is missing"),
        ({"sub": "raw-\nx"}, "sub is missing"),
        ({"iat": None}, "must be numbers"),
        ({"exp": None}, "must be numbers"),
        ({"exp": True}, "must be numbers"),
        ({"exp": 1e300}, "must be numbers"),
        ({"nbf": "soon"}, "must be numbers"),
        ({"iat": NOW + MAX_SKEW_SECONDS + 1}, "in the future"),
        ({"nbf": NOW + MAX_SKEW_SECONDS + 1}, "in the future"),
        ({"iat": NOW * 1000}, "iat or nbf is in milliseconds; it must be in seconds"),
        ({"exp": NOW - MAX_SKEW_SECONDS}, "has expired"),
        ({"iat": NOW - MAX_LIFETIME_SECONDS - MAX_SKEW_SECONDS, "exp": NOW + 9000}, "has expired"),
    ],
)
async def test_each_claim_is_judged(judge: Judge, claims: Mapping[str, Any], phrase: str) -> None:
    """A token that is longer valid than an hour counts for an hour."""
    result = await judge.result_of(**claims)
    assert result.startswith("401 ")
    assert phrase in result


@pytest.mark.parametrize("groups", [["staff"], None, {"sre": 1}, [["sre"]]])
async def test_a_token_without_a_role_is_403(judge: Judge, groups: object) -> None:
    """403, with the setting that maps roles. The token's own roles are not shown."""
    result = await judge.result_of(groups=groups)
    assert result.startswith("403 ")
    assert "nothing in groups of your token may do anything here (api.console.oidc.map)" in result


@pytest.mark.parametrize(
    ("header", "phrase"),
    [
        ({"typ": "application/at+jwt"}, "taken"),
        ({"typ": "AT+JWT"}, "taken"),
        ({"typ": "JWT"}, "typ is not at+jwt"),
        ({"typ": None}, "typ is not at+jwt"),
        ({"typ": "logout+jwt"}, "typ is not at+jwt"),
        ({"crit": ["b64"], "b64": False}, "crit"),
        ({"kid": "nobody's"}, "publishes no key"),
        ({"jwk": public(key("P-256", "evil")), "jku": "https://evil.example.com"}, "taken"),
    ],
)
async def test_the_header_is_judged(judge: Judge, header: Mapping[str, Any], phrase: str) -> None:
    """An access token must have its type, as a logout token has."""
    assert phrase in await judge.result_of(judge.provider.token(header))


async def test_typ_jwt_is_accepted_only_where_it_is_configured(tmp_path: Path, provider: ConsoleProvider) -> None:
    """Of the type of ID tokens, but not an ID token, and never a logout token."""
    judge = Judge(tmp_path, provider, accept_typ_jwt=True)
    assert await judge.result_of(provider.token({"typ": "JWT"})) == "taken"
    assert await judge.result_of(provider.token()) == "taken"
    assert "typ" in await judge.result_of(provider.token({"typ": None}))
    assert "typ" in await judge.result_of(provider.token({"typ": "logout+jwt"}))
    assert "aud" in await judge.result_of(provider.token({"typ": "JWT"}, aud=CLIENT))
    assert "logout" in await judge.result_of(provider.token({"typ": "JWT"}, events={EVENT: {}}))
    assert "ID token" in await judge.result_of(provider.token({"typ": "JWT"}, at_hash="x", nonce="n"))


async def test_a_forged_token_is_refused(judge: Judge) -> None:
    """Signed by another key, by no algorithm of public keys, or with the public key as a secret."""
    assert "the signature is wrong" in await judge.result_of(judge.provider.token(of=key("P-256", "evil")))
    for secret in shared_secret(public(key("P-256"))):
        assert isinstance(secret, OctKey)
        assert "alg is none of" in await judge.result_of(judge.provider.token({"alg": "HS256"}, secret))
    head, payload, _ = judge.provider.token().split(".")
    assert "the signature is wrong" in await judge.result_of(f"{head}.{payload}.")


async def test_a_poll_costs_no_signature(judge: Judge) -> None:
    """A token is verified once. Until it expires nobody asks for its key."""
    bearer = judge.provider.token()
    first = await judge.token(bearer)
    judge.provider.keys = []
    judge.monotonic += 1000
    assert await judge.token(bearer) is first
    assert judge.provider.asked.count("/keys") == 1


async def test_cached_tokens_are_bounded(judge: Judge) -> None:
    """The oldest are evicted, expired tokens first."""
    for nth in range(MAX_CACHED_TOKENS + 3):
        await judge.token(jti=f"j{nth}")
    kept = judge.signed_in._cache
    assert len(kept) == MAX_CACHED_TOKENS
    judge.now += 301 + MAX_SKEW_SECONDS
    await judge.token(iat=judge.now, exp=judge.now + 300)
    assert len(kept := judge.signed_in._cache) == 1
    assert [each.expires for each in kept.values()] == [judge.now + 300 + MAX_SKEW_SECONDS]


async def test_an_unavailable_provider_is_503(judge: Judge) -> None:
    """503: the token may be good."""
    await judge.provider.close()
    assert (await judge.result_of()).startswith("503 ")


@pytest.mark.parametrize("bearer", ["..", "a.b.c", f"{'a' * 20_000}.b.c"])
async def test_a_token_of_another_issuer_causes_no_request(judge: Judge, bearer: str) -> None:
    """Tokens of other services, and what is none, may come along with a request that needs no token."""
    assert (await judge.result_of(bearer)).startswith("401 ")
    assert "iss is another issuer" in await judge.result_of(iss="https://other.example.com", of=key("P-256", "other"))
    assert not judge.provider.asked


async def test_a_token_too_large_for_a_header_is_refused_at_the_sign_in(judge: Judge) -> None:
    """Else a page would get it, and be refused by each request without a word why."""
    assert await judge.result_of(groups=["sre", *(f"group-{nth:03}" for nth in range(400))]) == "taken"
    result = await judge.result_of(groups=["sre", *(f"group-{nth:03}" for nth in range(600))])
    assert result.startswith("401 ")
    assert "more than 8,000 bytes" in result


async def test_a_bearer_that_is_not_a_jwt_is_ignored(judge: Judge) -> None:
    """A token of the file that is misspelt is unknown, whatever the provider does."""
    assert await judge.signed_in.authenticate_bearer("hunter2") is None
    assert not judge.provider.asked


@pytest.mark.parametrize(
    ("claims", "issuers"),
    [
        ({"tenants": [ISS, "https://unknown.example.com"]}, {ISS}),
        ({"tenants": [ISS, OTHER]}, {ISS, OTHER}),
        ({"tenants": OTHER}, {OTHER}),
        ({"tenants": "*"}, None),
        ({"tenants": ["*", ISS]}, None),
    ],
)
async def test_a_claim_may_bind_to_issuers(
    tmp_path: Path, provider: ConsoleProvider, claims: Mapping[str, Any], issuers: set[str] | None
) -> None:
    """Only configured issuers count."""
    assert (await Judge(tmp_path, provider, issuers_claim="tenants").token(**claims)).issuers == issuers


@pytest.mark.parametrize("claims", [{}, {"tenants": []}, {"tenants": ["https://unknown.example.com"]}])
async def test_a_token_bound_to_no_issuer_is_403(
    tmp_path: Path, provider: ConsoleProvider, claims: Mapping[str, Any]
) -> None:
    """A missing claim does not mean all."""
    result = await Judge(tmp_path, provider, issuers_claim="tenants").result_of(**claims)
    assert result.startswith("403 ")
    assert "tenants of your token names no issuer" in result


async def test_a_claim_may_be_deep_or_one_text_of_words(tmp_path: Path, provider: ConsoleProvider) -> None:
    """Keycloak's roles, and the scopes of Entra ID."""
    deep = Judge(tmp_path, provider, scopes_claim=["realm_access", "roles"])
    assert (await deep.token(realm_access={"roles": ["support"]})).scopes == {"read"}
    assert (await deep.result_of(realm_access=["roles"])).startswith("403")
    words = Judge(tmp_path, provider, scopes_claim="scp")
    assert (await words.token(scp="support openid")).scopes == {"read"}
    assert (await Judge(tmp_path, provider).result_of(groups="support openid")).startswith("403")


async def test_a_name_is_shown_beside_the_hash(tmp_path: Path, provider: ConsoleProvider) -> None:
    """A user may choose it, and so pose as nobody else, nor write to a terminal."""
    judge = Judge(tmp_path, provider, name_claim="preferred_username")
    assert (await judge.token(preferred_username="alice")).name.startswith("alice (user <")
    hostile = await judge.token(preferred_username="a\x1b[2J" + "x" * 99)
    assert hostile.name.startswith(f"a·[2J{'x' * 59} (user <")
    assert (await judge.token(preferred_username=7)).name.startswith("user <")
