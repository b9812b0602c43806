"""Keys in the transit engine of a real Vault: each algorithm, each way in, and each refusal."""

import asyncio
import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from notifier.features.signers.signer_settings import VaultKeySettings
from notifier.features.signers.vault_key import VaultKey
from notifier.model.client import Algorithm
from notifier.tokens.jws import is_signed_by
from notifier.tokens.signer import SignatureResult
from tests.features.signers.places import MESSAGE, RSA, refused, signs, wrong_at_once
from tests.support.certificates import authority
from tests.tokens.memory_place import Times
from tests.vault.vault_process import RunningVault, running_vault

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def vault() -> Iterator[RunningVault]:
    """Start one Vault for all tests here; each test has its own keys."""
    with running_vault() as found:
        yield found


def key_of(vault: RunningVault, name: str, folder: Path, token: str = "", **further: object) -> VaultKey:
    """Return the key, with a root token by default."""
    file = folder / "token"
    file.write_text(token or vault.root)
    return VaultKey(settings_of(vault, name, token_file=str(file), **further))


def settings_of(vault: RunningVault, name: str, **further: object) -> VaultKeySettings:
    """As the configuration has it."""
    return VaultKeySettings.model_validate({"address": vault.address, "key": name, "version": 1, **further})


@pytest.mark.parametrize(
    ("kind", "algorithms"),
    [
        ("rsa-2048", RSA),
        ("ecdsa-p256", [Algorithm.ES256]),
        ("ecdsa-p384", [Algorithm.ES384]),
        ("ecdsa-p521", [Algorithm.ES512]),
        ("ed25519", [Algorithm.EDDSA, Algorithm.ED25519]),
    ],
)
async def test_signs_by_every_algorithm_as_jws_has_it(
    vault: RunningVault, tmp_path: Path, kind: str, algorithms: list[Algorithm]
) -> None:
    """Raw, r‖s, PSS with a salt as long as the hash: what the key's own public half verifies, and no other form."""
    key = key_of(vault, vault.key(f"each-{kind}", kind), tmp_path)
    half = await key.public()
    await signs(key, half, *algorithms)
    assert half.made_at is not None
    await key.close()


async def test_a_new_version_does_not_sign(vault: RunningVault, tmp_path: Path) -> None:
    """Until the configuration names it."""
    name = vault.key("rotated", "ecdsa-p256")
    key, next_key = key_of(vault, name, tmp_path), key_of(vault, name, tmp_path, version=2)
    first = await key.public()
    vault.do("POST", f"transit/keys/{name}/rotate")
    assert (await key.public()).key == first.key
    await signs(key, first)
    second = await next_key.public()
    await signs(next_key, second)
    assert not is_signed_by(first.key, Algorithm.ES256, MESSAGE, await next_key.sign(Algorithm.ES256, MESSAGE))
    await key.close()
    await next_key.close()


async def test_permanent_errors_differ_from_unavailability(vault: RunningVault, tmp_path: Path) -> None:
    """A version that is too high, or too old; a key that is not there, or does not sign; a mount that is not."""
    name = vault.key("faulty")
    await wrong_at_once(key_of(vault, name, tmp_path, version=9), "no version 9: its versions are 1")
    fault = await refused(key_of(vault, name, tmp_path, version=9), Algorithm.RS256)
    assert fault.result is SignatureResult.WRONG
    assert "500" in str(fault)
    vault.do("POST", f"transit/keys/{name}/rotate")
    vault.do("POST", f"transit/keys/{name}/config", {"min_encryption_version": 2})
    fault = await refused(key_of(vault, name, tmp_path), Algorithm.RS256)
    assert fault.result is SignatureResult.WRONG
    assert "minimum encryption key version" in str(fault)
    await wrong_at_once(key_of(vault, "nobody", tmp_path), "404 to transit/keys/nobody")
    assert (await refused(key_of(vault, "nobody", tmp_path), Algorithm.RS256)).result is SignatureResult.WRONG
    await wrong_at_once(key_of(vault, vault.key("secret", "aes256-gcm96"), tmp_path), "does not sign")
    await wrong_at_once(key_of(vault, name, tmp_path, mount="elsewhere"), "404 to elsewhere/keys")


async def test_a_sealed_vault_is_unavailable_until_it_is_unsealed(vault: RunningVault, tmp_path: Path) -> None:
    """The same key, with the token that it had."""
    key = key_of(vault, vault.key("sealed", "ecdsa-p256"), tmp_path)
    half = await key.public()
    with vault.sealed():
        fault = await refused(key)
        assert fault.result is SignatureResult.AWAY
        assert "503 to transit/sign/sealed/sha2-256: Vault is sealed" in str(fault)
    await signs(key, half)
    await key.close()


async def test_a_rate_limit_is_unavailability(vault: RunningVault, tmp_path: Path) -> None:
    """429, without a time."""
    key = key_of(vault, vault.key("limited", "ecdsa-p256"), tmp_path)
    await key.sign(Algorithm.ES256, MESSAGE)
    vault.do("POST", "sys/quotas/rate-limit/few", {"rate": 1, "interval": "60s", "path": "transit"})
    try:
        await key.sign(Algorithm.ES256, MESSAGE)
        fault = await refused(key)
    finally:
        vault.do("DELETE", "sys/quotas/rate-limit/few")
    assert fault.result is SignatureResult.AWAY
    assert "429" in str(fault)
    await key.close()


async def test_a_token_without_a_policy_is_a_mistake(vault: RunningVault, tmp_path: Path) -> None:
    """Named with what it lacks; the token is in no text."""
    name, token = vault.key("guarded"), vault.token("default")
    key = key_of(vault, name, tmp_path, token)
    fault = await refused(key, Algorithm.RS256)
    assert fault.result is SignatureResult.WRONG
    assert "403 to transit/sign/guarded/sha2-256" in str(fault)
    assert "update on transit/sign/guarded/*" in str(fault)
    assert token not in str(fault)
    await key.close()


async def test_an_expired_token_is_read_again_from_its_file(vault: RunningVault, tmp_path: Path) -> None:
    """An external agent writes the next token there. Only Vault's 403 reveals a revoked token."""
    name = vault.key("renewed", "ecdsa-p256")
    policy = vault.allow("renewed", name)
    token = vault.token(policy)
    key = key_of(vault, name, tmp_path, token)
    half = await key.public()
    vault.do("POST", "auth/token/revoke", {"token": token})
    assert (await refused(key)).result is SignatureResult.WRONG
    (tmp_path / "token").write_text(vault.token(policy) + "\n")
    await signs(key, half)
    await key.close()


async def test_logs_in_by_approle_and_again_after_a_revocation(vault: RunningVault, tmp_path: Path) -> None:
    """The secret id is read at each log-in. A wrong secret id is an error, and is in no text."""
    name = vault.key("by-role", "ecdsa-p256")
    vault.do("POST", "auth/approle/role/notifier", {"token_policies": vault.allow("by-role", name), "token_ttl": "1h"})
    role_id = vault.do("GET", "auth/approle/role/notifier/role-id")["data"]["role_id"]
    secret_id = vault.do("POST", "auth/approle/role/notifier/secret-id")["data"]["secret_id"]
    file = tmp_path / "secret-id"
    file.write_text("a-wrong-secret-id")
    key = VaultKey(settings_of(vault, name, approle={"role_id": role_id, "secret_id_file": str(file)}))
    fault = await refused(key)
    assert fault.result is SignatureResult.WRONG
    assert "400 to auth/approle/login: invalid" in str(fault)
    assert "a-wrong-secret-id" not in str(fault)
    file.write_text(secret_id)
    half = await key.public()
    await signs(key, half)
    await key.close()


def role_of(vault: RunningVault, name: str, folder: Path, **tokens: str) -> tuple[VaultKey, Times]:
    """A key whose AppRole has tokens with these times."""
    role = f"auth/approle/role/{name}"
    vault.do("POST", role, {"token_policies": vault.allow(name, vault.key(name, "ecdsa-p256")), **tokens})
    file = folder / "secret-id"
    file.write_text(vault.do("POST", f"{role}/secret-id")["data"]["secret_id"])
    role_id = vault.do("GET", f"{role}/role-id")["data"]["role_id"]
    watch = Times()
    return VaultKey(settings_of(vault, name, approle={"role_id": role_id, "secret_id_file": str(file)}), watch), watch


def tokens_of(vault: RunningVault, name: str) -> list[dict[str, object]]:
    """Return the valid tokens that have this policy."""
    made = [
        vault.do("POST", "auth/token/lookup-accessor", {"accessor": each})["data"]
        for each in vault.do("LIST", "auth/token/accessors")["data"]["keys"]
    ]
    return [each for each in made if name in each["policies"]]


async def until(fact: Callable[[], bool]) -> None:
    """Wait until it is a fact, ten seconds at most."""
    async with asyncio.timeout(10):
        while not fact():  # noqa: ASYNC110  Vault emits no event
            await asyncio.sleep(0.01)


async def test_a_token_is_renewed_at_half_its_life_and_replaced_before_the_end(
    vault: RunningVault, tmp_path: Path
) -> None:
    """While signatures go on. A renewal that grants little is the sign that the token's longest life is near."""
    key, watch = role_of(vault, "renewing", tmp_path, token_ttl="100s")
    await key.sign(Algorithm.ES256, MESSAGE)
    [first] = tokens_of(vault, "renewing")
    watch.now += 49
    await key.sign(Algorithm.ES256, MESSAGE)
    assert "last_renewal" not in tokens_of(vault, "renewing")[0]
    watch.now += 2
    await key.sign(Algorithm.ES256, MESSAGE)
    await until(lambda: "last_renewal" in tokens_of(vault, "renewing")[0])
    assert [each["accessor"] for each in tokens_of(vault, "renewing")] == [first["accessor"]]
    vault.do("POST", "auth/approle/role/renewing", {"token_ttl": "60s", "token_max_ttl": "60s"})
    watch.now += 51
    for _ in range(2):  # the first may still wait for the answer of the renewal before
        await key.sign(Algorithm.ES256, MESSAGE)
    await until(lambda: len(tokens_of(vault, "renewing")) == 2)
    await key.close()


async def test_logs_in_again_after_revocation_or_expiry(vault: RunningVault, tmp_path: Path) -> None:
    """Vault answers 403, as without a policy: for a new token the 403 is final."""
    key, watch = role_of(vault, "revoked", tmp_path, token_ttl="100s")
    await key.sign(Algorithm.ES256, MESSAGE)
    vault.do("PUT", "sys/leases/revoke-prefix/auth/approle/login")
    assert (await refused(key)).result is SignatureResult.WRONG
    watch.now += 31
    await key.sign(Algorithm.ES256, MESSAGE)
    assert len(tokens_of(vault, "revoked")) == 1
    watch.now += 101
    await key.sign(Algorithm.ES256, MESSAGE)
    assert len(tokens_of(vault, "revoked")) == 2
    await key.close()


async def test_a_periodic_token_of_a_file_is_renewed(vault: RunningVault, tmp_path: Path) -> None:
    """So it lives as long as this does."""
    name, watch = vault.key("periodic", "ecdsa-p256"), Times()
    (tmp_path / "token").write_text(vault.token(vault.allow("periodic", name), period="100s"))
    key = VaultKey(settings_of(vault, name, token_file=str(tmp_path / "token")), watch)
    await key.sign(Algorithm.ES256, MESSAGE)
    watch.now += 51
    await key.sign(Algorithm.ES256, MESSAGE)
    await until(lambda: "last_renewal" in tokens_of(vault, "periodic")[0])
    await key.close()


async def test_logs_in_as_the_service_account_of_its_pod(
    vault: RunningVault, tmp_path: Path, aiohttp_server: object
) -> None:
    """Vault asks Kubernetes about the pod's token; a stand-in of its TokenReview answers here."""
    name, asked = vault.key("by-pod", "ecdsa-p256"), []

    async def review(request: web.Request) -> web.Response:
        asked.append(await request.json())
        user = {"username": "system:serviceaccount:id:notifier", "uid": "7", "groups": ["system:serviceaccounts"]}
        return web.json_response({**asked[-1], "status": {"authenticated": True, "user": user}}, status=201)

    app = web.Application()
    app.router.add_post("/apis/authentication.k8s.io/v1/tokenreviews", review)
    server = await aiohttp_server(app)  # type: ignore[operator]
    vault.do("POST", "auth/kubernetes/config", {
        "kubernetes_host": str(server.make_url("/")).rstrip("/"), "token_reviewer_jwt": pod_token("vault"),
        "kubernetes_ca_cert": authority(tmp_path).ca_file.read_text(), "disable_iss_validation": True,
    })  # fmt: skip
    vault.do("POST", "auth/kubernetes/role/notifier", {
        "bound_service_account_names": "notifier", "bound_service_account_namespaces": "id",
        "token_policies": vault.allow("by-pod", name),
    })  # fmt: skip
    file = tmp_path / "pod-token"
    file.write_text(pod_token("notifier"))
    key = VaultKey(settings_of(vault, name, kubernetes={"role": "notifier", "token_file": str(file)}))
    half = await key.public()
    await signs(key, half)
    assert [each["spec"]["token"] for each in asked] == [pod_token("notifier")]
    await key.close()
    stranger = VaultKey(settings_of(vault, name, kubernetes={"role": "nobody", "token_file": str(file)}))
    assert (await refused(stranger)).result is SignatureResult.WRONG
    await stranger.close()


def pod_token(account: str) -> str:
    """A service account's token as Kubernetes writes it. Nobody here looks at its signature: Kubernetes does."""
    about = {"namespace": "id", "serviceaccount": {"name": account, "uid": "7"}}
    claims = {
        "kubernetes.io": about,
        "sub": f"system:serviceaccount:id:{account}",
        "nbf": 1_700_000_000,
        "exp": 4_000_000_000,
    }
    parts = ({"alg": "RS256"}, claims)
    return ".".join(
        [*(base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=").decode() for each in parts), "c2ln"]
    )


async def test_an_unreachable_vault_is_unavailable(tmp_path: Path) -> None:
    """Nothing listens there."""
    (tmp_path / "token").write_text("t")
    settings = {"address": "http://127.0.0.1:9", "key": "k", "version": 1, "token_file": str(tmp_path / "token")}
    key = VaultKey(VaultKeySettings.model_validate(settings))
    fault = await refused(key, Algorithm.RS256)
    assert fault.result is SignatureResult.AWAY
    assert str(fault).startswith("http://127.0.0.1:9: ")
    await key.close()


async def test_follows_the_authority_that_the_configuration_names(tmp_path: Path) -> None:
    """Another authority's certificate is a mistake; the right one lets it through to Vault's own refusal."""
    issuer, stranger = authority(tmp_path / "issuer"), authority(tmp_path / "stranger")
    with running_vault(issuer.issue("127.0.0.1")) as found:
        good = key_of(found, "k", tmp_path, "no-token", tls={"ca_file": str(issuer.ca_file)})
        assert "403" in str(await refused(good))
        bad = key_of(found, "k", tmp_path, "no-token", tls={"ca_file": str(stranger.ca_file)})
        fault = await refused(bad)
    assert fault.result is SignatureResult.WRONG
    assert "certificate" in str(fault)
    await good.close()
    await bad.close()
