"""Keys in AWS KMS as moto plays it, with what moto has wrong put right; and AWS's refusals, by a server of refusals."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from notifier.features.signers.aws_kms_key import MAX_RAW_BYTES
from notifier.model.client import Algorithm
from notifier.tokens.external_key import ExternalKey
from notifier.tokens.signer import SignatureResult
from tests.aws.running_moto import Kms, moto
from tests.features.signers.places import MESSAGE, RSA, refused_once, signs

pytestmark = pytest.mark.full


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Set AWS's own variables, so that no file of this machine is read."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest.fixture(scope="module")
def kms() -> Iterator[Kms]:
    """moto, put right."""
    with moto("right") as found:
        yield found


@pytest.mark.parametrize(
    ("spec", "algorithms"),
    [
        ("RSA_2048", RSA),
        ("ECC_NIST_P256", [Algorithm.ES256]),
        ("ECC_NIST_P384", [Algorithm.ES384]),
        ("ECC_NIST_P521", [Algorithm.ES512]),
    ],
)
async def test_signs_by_every_algorithm_as_jws_has_it(kms: Kms, spec: str, algorithms: list[Algorithm]) -> None:
    """Also a token that is too long for KMS: then its digest is signed."""
    key, long = kms.place(await kms.key(spec)), b"m" * (MAX_RAW_BYTES + 1)
    half = await key.public()
    assert half.lacking == {}
    for message in (MESSAGE, long):
        await signs(key, half, *algorithms, message=message)
    await key.close()


async def test_a_salt_of_another_length_is_refused_at_the_start() -> None:
    """Unchanged moto: its PSS has the longest salt. The key signs by the others, and lists the missing algorithms."""
    with moto() as kms:
        place = kms.place(await kms.key("RSA_2048"))
        key = ExternalKey(place, "aws_kms", "logout", lambda *_: None, timeout=5.0, concurrency=2)
        await key.check()
        await key.close()
    assert key.fault is None
    assert key.algorithms == {Algorithm.RS256, Algorithm.RS384, Algorithm.RS512}
    assert key.half is not None
    assert key.half.lacking[Algorithm.PS256] == "its signature by PS256 does not verify, and is not used"


async def test_an_alias_that_was_moved_signs_with_the_key_that_it_led_to(kms: Kms) -> None:
    """The other key signs once the configuration names it, or after a start."""
    first, second = await kms.key("ECC_NIST_P256"), await kms.key("ECC_NIST_P256")
    async with kms.owner() as owner:
        await owner.create_alias(AliasName="alias/logout", TargetKeyId=first)
        key = kms.place("alias/logout")
        half = await key.public()
        await owner.update_alias(AliasName="alias/logout", TargetKeyId=second)
    assert (await key.public()).key == half.key
    await signs(key, half)
    await key.close()


async def test_a_key_that_is_not_there_or_disabled_is_a_mistake(kms: Kms) -> None:
    """By AWS's own name for it."""
    fault = await refused_once(kms.place("alias/nobody"))
    assert (fault.result, "NotFoundException" in str(fault)) == (SignatureResult.WRONG, True)
    arn = await kms.key("ECC_NIST_P256")
    async with kms.owner() as owner:
        await owner.disable_key(KeyId=arn.rpartition("/")[2])
    fault = await refused_once(kms.place(arn))
    assert (fault.result, "DisabledException" in str(fault)) == (SignatureResult.WRONG, True)


@pytest.mark.parametrize(
    ("status", "code", "result"),
    [
        (400, "AccessDeniedException", SignatureResult.WRONG),
        (400, "KMSInvalidStateException", SignatureResult.WRONG),
        (400, "UnrecognizedClientException", SignatureResult.WRONG),
        (400, "ThrottlingException", SignatureResult.AWAY),
        (429, "", SignatureResult.AWAY),
        (500, "KMSInternalException", SignatureResult.AWAY),
        (500, "KeyUnavailableException", SignatureResult.AWAY),
        (503, "DependencyTimeoutException", SignatureResult.AWAY),
    ],
)
async def test_a_refusal_is_reported_without_a_retry(status: int, code: str, result: SignatureResult) -> None:
    """aiobotocore would try five times, with waits, past our time limit. Codes as in the reference of KMS."""
    asked = []

    async def refuse(request: web.Request) -> web.Response:
        asked.append(request.headers["X-Amz-Target"])
        assert "AWS4-HMAC-SHA256 Credential=AKIATEST/" in request.headers["Authorization"]
        answer = {"__type": code, "message": "a reason"} if code else {}
        return web.json_response(answer, status=status, content_type="application/x-amz-json-1.1")

    app = web.Application()
    app.router.add_post("/", refuse)
    async with TestServer(app) as server:
        fault = await refused_once(Kms(str(server.make_url("/"))).place("alias/logout"))
    assert asked == ["TrentService.Sign"]
    assert fault.result is result
    assert code in str(fault)


async def test_an_unreachable_service_is_unavailable() -> None:
    """Nothing listens there."""
    fault = await refused_once(Kms("http://127.0.0.1:9").place("alias/logout"))
    assert fault.result is SignatureResult.AWAY


async def test_missing_credentials_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has AWS's own text."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    fault = await refused_once(Kms("http://127.0.0.1:9").place("alias/logout"))
    assert (fault.result, str(fault)) == (SignatureResult.WRONG, "Unable to locate credentials")
