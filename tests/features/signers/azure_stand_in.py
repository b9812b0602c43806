"""A stand-in for Azure Key Vault and for Entra's token endpoint, over TLS. It refuses each request that differs
from their references, by a 400 with the reason.

It shows what Microsoft's own clients send and take. It does not show what Azure does.
"""

import base64
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature

from tests.support.certificates import Authority

TENANT, CLIENT, SECRET = "11111111-2222-3333-4444-555555555555", "client-of-azure", "not-a-secret"
VERSIONS = ("0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210")
_HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}


def encoded(raw: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    """Return the decoded bytes."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


async def unchanged(signature: bytes) -> bytes:
    """The signature as it is."""
    return signature


@dataclass(kw_only=True)
class AzureStandIn:
    """Keys by name and version, and the requests. `refusal`: the answer to each request for a signature.

    `lets_in`: whether the client's secret and its token are good. `passed`: a change of each signature.
    """

    keys: dict[tuple[str, str], rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey] = field(default_factory=dict)
    operations: tuple[str, ...] = ("sign", "verify")
    refusal: tuple[int, str, Mapping[str, str]] | None = None
    lets_in: bool = True
    passed: Callable[[bytes], Awaitable[bytes]] = unchanged
    asked: list[str] = field(default_factory=list)
    token: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    address: str = ""

    def key(self, name: str, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, version: int = 0) -> None:
        """Make a version of a key."""
        self.keys[name, VERSIONS[version]] = key

    async def login(self, request: web.Request) -> web.Response:
        """Answer the client-credentials grant, as Entra."""
        form = await request.post()
        right = {
            "grant_type": "client_credentials", "client_id": CLIENT, "client_secret": SECRET,
            "scope": "https://vault.azure.net/.default",
        }  # fmt: skip
        self.asked.append("login")
        if not self.lets_in or any(form.get(name) != value for name, value in right.items()):
            return web.json_response({"error": "invalid_client", "error_description": "AADSTS7000215"}, status=401)
        return web.json_response({"access_token": self.token, "expires_in": 3600, "token_type": "Bearer"})

    async def vault(self, request: web.Request) -> web.Response:
        """Answer with the challenge, or to one of the two operations, as Key Vault."""
        if "Authorization" not in request.headers or not self.lets_in:
            challenge = (
                f'Bearer authorization="https://login.microsoftonline.com/{TENANT}", resource="https://vault.azure.net"'
            )
            return _refused(401, "Unauthorized", {"WWW-Authenticate": challenge})
        self.asked.append(f"{request.method} {request.path}")
        if request.headers["Authorization"] != f"Bearer {self.token}" or not request.query.get("api-version"):
            return _refused(400, "BadParameter")
        name, version, *operation = [*request.path.split("/")[2:], ""][:4]
        if not version:
            version = max((of for key, of in self.keys if key == name), key=VERSIONS.index, default="")
        key = self.keys.get((name, version))
        if key is None:
            return _refused(404, "KeyNotFound")
        if request.method == "POST" and operation[0] == "sign":
            return await self._signed(request, key)
        return web.json_response(
            {
                "key": {
                    "kid": f"https://{request.host}/keys/{name}/{version}",
                    "key_ops": self.operations,
                    **_jwk(key),
                },
                "attributes": {"enabled": True, "created": 1_700_000_000, "updated": 1_700_000_000},
            }
        )

    async def _signed(self, request: web.Request, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> web.Response:
        if self.refusal is not None:
            return _refused(*self.refusal)
        asked = await request.json()
        alg, digest = str(asked["alg"]), decoded(asked["value"])
        how = _HASHES[alg[-3:]]
        if len(digest) != how.digest_size or set(asked) != {"alg", "value"}:
            return _refused(400, "BadParameter")
        signature = await self.passed(_signature(key, alg, digest))
        return web.json_response({"kid": str(request.url.with_query(None)), "value": encoded(signature)})


def _signature(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, alg: str, digest: bytes) -> bytes:
    how = _HASHES[alg[-3:]]
    if isinstance(key, rsa.RSAPrivateKey):
        pss = padding.PSS(padding.MGF1(how), how.digest_size)
        return key.sign(digest, pss if alg.startswith("PS") else padding.PKCS1v15(), Prehashed(how))
    size = (key.key_size + 7) // 8
    r, s = decode_dss_signature(key.sign(digest, ec.ECDSA(Prehashed(how))))
    return r.to_bytes(size) + s.to_bytes(size)


def _jwk(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> dict[str, Any]:
    if isinstance(key, rsa.RSAPrivateKey):
        of = key.public_key().public_numbers()
        return {"kty": "RSA-HSM", "n": encoded(of.n.to_bytes(key.key_size // 8)), "e": encoded(of.e.to_bytes(3))}
    size, point = (key.key_size + 7) // 8, key.public_key().public_numbers()
    shown = {"x": encoded(point.x.to_bytes(size)), "y": encoded(point.y.to_bytes(size))}
    return {"kty": "EC-HSM", "crv": f"P-{key.key_size}", **shown}


def _refused(status: int, code: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response({"error": {"code": code, "message": "a reason"}}, status=status, headers=headers)


@asynccontextmanager
async def azure(issuer: Authority, *names: str) -> AsyncIterator[AzureStandIn]:
    """A stand-in that listens, with a certificate for these names too."""
    stand_in = AzureStandIn()
    app = web.Application()
    app.router.add_post(f"/{TENANT}/oauth2/v2.0/token", stand_in.login)
    app.router.add_route("*", "/keys/{rest:.*}", stand_in.vault)
    server = TestServer(app, scheme="https")
    await server.start_server(ssl=issuer.server("127.0.0.1", *names))
    try:
        stand_in.address = str(server.make_url("/")).rstrip("/")
        yield stand_in
    finally:
        await server.close()
