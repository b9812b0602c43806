"""Keys in Google Cloud KMS: Google's own client against a stand-in that refuses what it should not be asked."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from notifier.features.signers.google_kms_key import GoogleKmsKey
from notifier.features.signers.signer_settings import GoogleKmsSettings
from notifier.model.client import Algorithm
from notifier.tokens.signer import SignatureResult
from tests.features.signers.google_stand_in import KEY, GoogleStandIn, google_kms
from tests.features.signers.places import refused_once, signs, wrong_at_once

pytestmark = pytest.mark.full


@pytest.fixture
async def kms() -> AsyncIterator[GoogleStandIn]:
    """One with no key yet."""
    async with google_kms() as found:
        yield found


def place(kms: GoogleStandIn, version: int = 1) -> GoogleKmsKey:
    """The key as a place."""
    return GoogleKmsKey(GoogleKmsSettings.model_validate({"name": f"{KEY}/{version}"}), kms.channel)


RSA = rsa.generate_private_key(65537, 2048)
P256 = ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize(
    ("private", "algorithm", "alg"),
    [
        (RSA, "RSA_SIGN_PKCS1_2048_SHA256", Algorithm.RS256),
        (RSA, "RSA_SIGN_PKCS1_4096_SHA512", Algorithm.RS512),
        (RSA, "RSA_SIGN_PSS_2048_SHA256", Algorithm.PS256),
        (RSA, "RSA_SIGN_PSS_4096_SHA512", Algorithm.PS512),
        (P256, "EC_SIGN_P256_SHA256", Algorithm.ES256),
        (ec.generate_private_key(ec.SECP384R1()), "EC_SIGN_P384_SHA384", Algorithm.ES384),
        (ed25519.Ed25519PrivateKey.generate(), "EC_SIGN_ED25519", Algorithm.EDDSA),
        (ed25519.Ed25519PrivateKey.generate(), "EC_SIGN_ED25519", Algorithm.ED25519),
    ],
)
async def test_signs_by_the_one_algorithm_of_its_version(
    kms: GoogleStandIn, private: Any, algorithm: str, alg: Algorithm
) -> None:
    """As JWS requires. It reports that an RSA key signs by no other."""
    kms.versions.append((private, algorithm))
    key = place(kms)
    half = await key.public()
    await signs(key, half, alg)
    rsa_has = {each for each in Algorithm if each.startswith(("RS", "PS"))}
    assert set(half.lacking) == (rsa_has - {alg} if private is RSA else set())
    assert all(text == f"this version of the key signs by {algorithm} alone" for text in half.lacking.values())
    await key.close()


async def test_a_new_version_does_not_sign(kms: GoogleStandIn) -> None:
    """Until the configuration names it."""
    kms.versions.append((P256, "EC_SIGN_P256_SHA256"))
    key = place(kms)
    half = await key.public()
    kms.versions.append((ec.generate_private_key(ec.SECP256R1()), "EC_SIGN_P256_SHA256"))
    assert (await key.public()).key == half.key
    await signs(key, half)
    assert kms.asked == [f"{KEY}/1"]
    await key.close()


@pytest.mark.parametrize(
    ("status", "result"),
    [
        (grpc.StatusCode.NOT_FOUND, SignatureResult.WRONG),
        (grpc.StatusCode.PERMISSION_DENIED, SignatureResult.WRONG),
        (grpc.StatusCode.UNAUTHENTICATED, SignatureResult.WRONG),
        (grpc.StatusCode.FAILED_PRECONDITION, SignatureResult.WRONG),
        (grpc.StatusCode.INVALID_ARGUMENT, SignatureResult.WRONG),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, SignatureResult.AWAY),
        (grpc.StatusCode.UNAVAILABLE, SignatureResult.AWAY),
        (grpc.StatusCode.INTERNAL, SignatureResult.AWAY),
        (grpc.StatusCode.DEADLINE_EXCEEDED, SignatureResult.AWAY),
    ],
)
async def test_a_refusal_is_reported_without_a_retry(
    kms: GoogleStandIn, status: grpc.StatusCode, result: SignatureResult
) -> None:
    """Google's client would try an UNAVAILABLE for most of a minute."""
    kms.versions.append((P256, "EC_SIGN_P256_SHA256"))
    kms.refusal = status
    fault = await refused_once(place(kms))
    assert str(fault) == f"Google KMS answered {status.name}: a reason"
    assert fault.result is result
    assert len(kms.asked) == 1


async def test_missing_credentials_are_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of the service itself, and not of this machine."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
    key = GoogleKmsKey(GoogleKmsSettings.model_validate({"name": f"{KEY}/1"}))
    await wrong_at_once(key, r"^Google lets nobody in: .*missing\.json was not found")
