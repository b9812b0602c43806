"""Keys in Azure Key Vault: Microsoft's own clients against a stand-in that refuses what it should not be asked."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from notifier.features.signers.azure_key import AzureKey
from notifier.features.signers.key_kinds import OwnLoopKey
from notifier.features.signers.signer_settings import AzureKeySettings
from notifier.model.client import Algorithm, TlsFiles
from notifier.tokens.signer import SignatureResult
from tests.features.signers.azure_stand_in import CLIENT, SECRET, TENANT, VERSIONS, AzureStandIn, azure
from tests.features.signers.places import RSA, refused_once, signs, wrong_at_once
from tests.support.certificates import Authority, authority
from tests.support.hanging_files import being_read, hanging

pytestmark = pytest.mark.full


@pytest.fixture
def issuer(tmp_path: Path) -> Authority:
    """Whom the clients trust."""
    return authority(tmp_path)


@pytest.fixture
async def vault(issuer: Authority, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AzureStandIn]:
    """A vault, and Azure's own variables for logging in there."""
    async with azure(issuer) as found:
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", found.address)
        monkeypatch.setenv("AZURE_TENANT_ID", TENANT)
        monkeypatch.setenv("AZURE_CLIENT_ID", CLIENT)
        monkeypatch.setenv("AZURE_CLIENT_SECRET", SECRET)
        yield found


def place(vault: AzureStandIn, issuer: Authority, name: str) -> AzureKey:
    """The key as a place. The stand-in is at no address of Azure's, and has a certificate of ours."""
    settings = {"vault_url": vault.address, "key": name, "version": VERSIONS[0]}
    further = {"verify_challenge_resource": False}
    return AzureKey(AzureKeySettings.model_validate(settings), further, TlsFiles(ca_file=issuer.ca_file))


@pytest.mark.parametrize(
    ("private", "algorithms"),
    [
        (rsa.generate_private_key(65537, 2048), RSA),
        (ec.generate_private_key(ec.SECP256R1()), [Algorithm.ES256]),
        (ec.generate_private_key(ec.SECP384R1()), [Algorithm.ES384]),
        (ec.generate_private_key(ec.SECP521R1()), [Algorithm.ES512]),
    ],
    ids=["RSA", "P-256", "P-384", "P-521"],
)
async def test_signs_by_every_algorithm_as_jws_has_it(
    vault: AzureStandIn,
    issuer: Authority,
    private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
    algorithms: list[Algorithm],
) -> None:
    """It logs in once, and names the version each time."""
    vault.key("logout", private)
    key = place(vault, issuer, "logout")
    half = await key.public()
    assert half.key == private.public_key()
    assert half.made_at == 1_700_000_000
    await signs(key, half, *algorithms)
    await key.close()
    assert vault.asked.count("login") == 1
    signed = [each for each in vault.asked if each.endswith("/sign")]
    assert signed == [f"POST /keys/logout/{VERSIONS[0]}/sign"] * len(algorithms)


async def test_a_new_version_does_not_sign(vault: AzureStandIn, issuer: Authority) -> None:
    """Until the configuration names it."""
    vault.key("logout", ec.generate_private_key(ec.SECP256R1()))
    key = place(vault, issuer, "logout")
    half = await key.public()
    vault.key("logout", ec.generate_private_key(ec.SECP256R1()), version=1)
    assert (await key.public()).key == half.key
    await signs(key, half)
    await key.close()


@pytest.mark.parametrize(
    ("status", "code", "result"),
    [
        (403, "Forbidden", SignatureResult.WRONG),
        (400, "BadParameter", SignatureResult.WRONG),
        (429, "Throttled", SignatureResult.AWAY),
        (500, "InternalServerError", SignatureResult.AWAY),
        (503, "ServiceUnavailable", SignatureResult.AWAY),
    ],
)
async def test_a_refusal_is_reported_without_a_retry(
    vault: AzureStandIn, issuer: Authority, status: int, code: str, result: SignatureResult
) -> None:
    """Microsoft's client would wait for `Retry-After`, and try again."""
    vault.key("logout", ec.generate_private_key(ec.SECP256R1()))
    vault.refusal = (status, code, {"Retry-After": "3"})
    fault = await refused_once(place(vault, issuer, "logout"))
    assert str(fault) == f"Azure answered {status} {code}: a reason"
    assert (fault.result, fault.wait) == (result, 3.0)
    assert len([each for each in vault.asked if each.endswith("/sign")]) == 1


async def test_permanent_errors_are_reported(
    vault: AzureStandIn, issuer: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that is not there, or may not sign; a wrong secret, which is in no text."""
    await wrong_at_once(place(vault, issuer, "nobody"), "404 KeyNotFound")
    vault.key("logout", ec.generate_private_key(ec.SECP256R1()))
    vault.operations = ("verify",)
    await wrong_at_once(place(vault, issuer, "logout"), "may not be used to sign: its key_ops lack it")
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "a-wrong-secret")
    await wrong_at_once(place(vault, issuer, "logout"), "^Azure lets nobody in: (?!.*a-wrong-secret)")


async def test_a_foreign_address_of_the_vault_is_an_error(vault: AzureStandIn, issuer: Authority) -> None:
    """Such as a name of ours for it: Microsoft's client gives it no token."""
    settings = {"vault_url": vault.address, "key": "logout", "version": VERSIONS[0]}
    key = AzureKey(AzureKeySettings.model_validate(settings), files=TlsFiles(ca_file=issuer.ca_file))
    await wrong_at_once(key, rf"^{vault.address}: .*'vault.azure.net' does not match the requested domain")


async def test_an_unreachable_vault_is_unavailable(vault: AzureStandIn, issuer: Authority) -> None:
    """Nothing listens there."""
    settings = {"vault_url": "https://127.0.0.1:9", "key": "logout", "version": VERSIONS[0]}
    key = AzureKey(AzureKeySettings.model_validate(settings), files=TlsFiles(ca_file=issuer.ca_file))
    assert (await refused_once(key)).result is SignatureResult.AWAY


async def test_a_token_file_that_hangs_does_not_block_the_event_loop(
    vault: AzureStandIn, issuer: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vault of this test answers meanwhile, in the same loop."""
    file = tmp_path / "token"
    monkeypatch.delenv("AZURE_CLIENT_SECRET")
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(file))
    vault.key("logout", ec.generate_private_key(ec.SECP256R1()))
    key = OwnLoopKey(lambda: place(vault, issuer, "logout"))
    with hanging(file):
        request = asyncio.ensure_future(key.public())
        async with being_read(file):
            request.cancel()
            await key.close()


async def test_signs_in_its_own_event_loop(vault: AzureStandIn, issuer: Authority) -> None:
    """Also after it was closed, in another."""
    vault.key("logout", ec.generate_private_key(ec.SECP256R1()))
    key = OwnLoopKey(lambda: place(vault, issuer, "logout"))
    for _ in range(2):
        await signs(key, await key.public())
        await key.close()
    vault.lets_in = False
    assert (await refused_once(key)).result is SignatureResult.WRONG
