"""The key services of AWS, Azure and Google as a worker reaches them, each with faults on request.

The worker is the installed one: it has the vendors' variables and nothing else. AWS is moto behind a server that passes
requests on. Azure and Google are the stand-ins, at the vendors' own names by way of a proxy and a certificate of ours.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import grpc
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.aws.running_moto import REGION, moto
from tests.features.signers.azure_stand_in import CLIENT, SECRET, TENANT, VERSIONS, azure
from tests.features.signers.google_stand_in import KEY, google_kms
from tests.support import behaviours
from tests.support.certificates import authority
from tests.support.receivers import scripted
from tests.system.worker_process import console_script

AZURE, GOOGLE = "logout.vault.azure.net", "cloudkms.googleapis.com"


class ServiceFault(StrEnum):
    """What each signature meets."""

    WELL = "well"
    THROTTLES = "throttles"
    HANGS = "hangs"
    FAILS = "fails"
    LIES = "lies"
    LOCKED_OUT = "locked out"


TOLD: Mapping[ServiceFault, str] = {
    ServiceFault.THROTTLES: "away",
    ServiceFault.HANGS: "slow",
    ServiceFault.FAILS: "away",
    ServiceFault.LIES: "unverified",
    ServiceFault.LOCKED_OUT: "wrong",
}
"""The `result` that the worker counts for each."""


class Mood:
    """What a service does now. `be` changes it, and ends what hangs."""

    def __init__(self, turned: Callable[[ServiceFault], None] = lambda _: None) -> None:
        self.now = ServiceFault.WELL
        self._turned = turned
        self._over = asyncio.Event()

    def be(self, what: str) -> None:
        """Meet each signature so from now on."""
        self._over.set()
        self._over, self.now = asyncio.Event(), ServiceFault(what)
        self._turned(self.now)

    async def passed(self, signature: bytes) -> bytes:
        """Return a signature or its fault. A wrong one has the same form: DER and r‖s both end with s."""
        if self.now is ServiceFault.HANGS:
            await self._over.wait()
        return signature[:-1] + bytes([signature[-1] ^ 1]) if self.now is ServiceFault.LIES else signature


class Fails(Protocol):
    """A key service with faults on request."""

    def be(self, what: str) -> None:
        """`well`, or a fault that each signature meets from now on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyService:
    """A key there: as the configuration names it, and the environment of the worker that asks for it.

    `secret` is in that, and must be in no log. `command`: another program than `notifier` that was loaded before.
    """

    kind: str
    key: Mapping[str, object]
    environ: Mapping[str, str]
    secret: str = SECRET
    command: Sequence[str] | None = None
    mood: Fails


# ── AWS ─────────────────────────────────────────────────────────────────────────────────────────────────────────

_AWS: Mapping[ServiceFault, tuple[int, str]] = {
    ServiceFault.THROTTLES: (400, "ThrottlingException"),
    ServiceFault.FAILS: (500, "KMSInternalException"),
    ServiceFault.LOCKED_OUT: (400, "UnrecognizedClientException"),
}


@asynccontextmanager
async def aws(folder: Path) -> AsyncIterator[KeyService]:
    """moto, and in front of it what fails."""
    mood = Mood()
    with moto("right") as kms:
        environ = {
            "AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(folder / "config"), "AWS_SHARED_CREDENTIALS_FILE": str(folder / "credentials"),
        }  # fmt: skip
        async with aiohttp.ClientSession() as session:

            async def handle(request: web.Request) -> web.Response:
                signs = request.headers["X-Amz-Target"].endswith(".Sign")
                if mood.now in _AWS and (signs or mood.now is ServiceFault.LOCKED_OUT):
                    status, code = _AWS[mood.now]
                    return _aws_answer({"__type": code, "message": "a reason"}, status)
                kept = {name: value for name, value in request.headers.items() if name != "Host"}
                async with session.post(kms.endpoint, data=await request.read(), headers=kept) as answer:
                    reported = await answer.json(content_type=None)
                    if "Signature" in reported:
                        made = await mood.passed(base64.b64decode(reported["Signature"]))
                        reported["Signature"] = base64.b64encode(made).decode()
                    return _aws_answer(reported, answer.status)

            app = web.Application()
            app.router.add_post("/", handle)
            async with TestServer(app) as server:
                arn = await kms.key("ECC_NIST_P256")
                environ["AWS_ENDPOINT_URL_KMS"] = str(server.make_url("/"))
                key = {"key_id": arn, "region": REGION}
                yield KeyService(kind="aws_kms", key=key, environ=environ, mood=mood)
                mood.be(ServiceFault.WELL)


def _aws_answer(reported: Mapping[str, Any], status: int) -> web.Response:
    return web.json_response(reported, status=status, content_type="application/x-amz-json-1.1")


# ── Azure ───────────────────────────────────────────────────────────────────────────────────────────────────────

_AZURE: Mapping[ServiceFault, tuple[int, str, Mapping[str, str]]] = {
    ServiceFault.THROTTLES: (429, "Throttled", {"Retry-After": "1"}),
    ServiceFault.FAILS: (500, "InternalServerError", {}),
}


@asynccontextmanager
async def key_vault(folder: Path) -> AsyncIterator[KeyService]:
    """A vault and the log-in, both at Microsoft's own names. Who is locked out has no token that counts."""
    issuer = authority(folder / "azure")
    async with azure(issuer, AZURE, "login.microsoftonline.com") as stand_in:

        def turn(fault: ServiceFault) -> None:
            stand_in.refusal, stand_in.lets_in = _AZURE.get(fault), fault is not ServiceFault.LOCKED_OUT

        mood = Mood(turn)
        stand_in.passed = mood.passed
        stand_in.key("logout", ec.generate_private_key(ec.SECP256R1()))
        port = int(stand_in.address.rpartition(":")[2])
        async with scripted(behaviours.tunnel("127.0.0.1", port)) as proxy:
            environ = {
                "https_proxy": proxy.origin, "SSL_CERT_FILE": str(issuer.ca_file),
                "AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_ID": CLIENT, "AZURE_CLIENT_SECRET": SECRET,
            }  # fmt: skip
            key = {"vault_url": f"https://{AZURE}", "key": "logout", "version": VERSIONS[0]}
            # aiohttp reads SSL_CERT_FILE when it is imported.
            command = console_script()
            yield KeyService(kind="azure_key_vault", key=key, environ=environ, command=command, mood=mood)
            mood.be(ServiceFault.WELL)


# ── Google ──────────────────────────────────────────────────────────────────────────────────────────────────────

_GOOGLE: Mapping[ServiceFault, grpc.StatusCode] = {
    ServiceFault.THROTTLES: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ServiceFault.FAILS: grpc.StatusCode.INTERNAL,
    ServiceFault.LOCKED_OUT: grpc.StatusCode.UNAUTHENTICATED,
}


@asynccontextmanager
async def google(folder: Path) -> AsyncIterator[KeyService]:
    """A KMS at Google's own name, and a service account."""
    issuer = authority(folder / "google")
    account = folder / "account.json"
    words = _account()
    account.write_text(json.dumps(words))
    async with google_kms(issuer.issue(GOOGLE).read_bytes()) as stand_in:

        def turn(fault: ServiceFault) -> None:
            stand_in.refusal = _GOOGLE.get(fault)

        mood = Mood(turn)
        stand_in.passed = mood.passed
        stand_in.versions.append((ec.generate_private_key(ec.SECP256R1()), "EC_SIGN_P256_SHA256"))
        async with scripted(behaviours.tunnel("127.0.0.1", stand_in.port)) as proxy:
            environ = {
                "https_proxy": proxy.origin, "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(issuer.ca_file),
                "GOOGLE_APPLICATION_CREDENTIALS": str(account),
            }  # fmt: skip
            secret = words["private_key"].splitlines()[1]
            yield KeyService(kind="google_kms", key={"name": f"{KEY}/1"}, environ=environ, secret=secret, mood=mood)
            mood.be(ServiceFault.WELL)


def _account() -> Mapping[str, str]:
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return {
        "type": "service_account", "project_id": "p", "client_id": "1", "client_email": "n@p.iam.gserviceaccount.com",
        "private_key_id": "1", "private_key": pem, "token_uri": "https://oauth2.googleapis.com/token",
    }  # fmt: skip
