"""A client whose tokens are encrypted, under load: its keys cannot be read."""

import asyncio

import pytest
from aiohttp import web
from jwcrypto.jwk import JWK

from tests.faults.conftest import Form, Record
from tests.faults.rig import CLIENTS, Rig, load
from tests.system.loopback import LoopbackServer
from tests.system.site import client
from tests.system.worker_process import worker
from tests.tokens.encryption_keys import opened, public

READER = "healthy"
SLOW = 400.0  # seconds for the last delivery: after several deferrals it returns after 256 s at most
KEYS = "keys of a client"


class Reader(LoopbackServer):
    """The client: publishes its key and decrypts its tokens. Until `mend`, its `jwks_uri` hangs or answers 503."""

    def __init__(self, fault: str) -> None:
        super().__init__(self._publish)
        self.clear = 0
        self._fault = fault
        self._mended = asyncio.Event()
        self._key = JWK.generate(kty="EC", crv="P-256")

    def register(self, made: Rig) -> None:
        """Have its tokens encrypted, and only its."""
        made.clients.opens = self._open
        asked = {"id_token_encrypted_response_alg": "ECDH-ES", "jwks_uri": f"{self.base}/jwks"}
        made.site.write_clients(
            [client(name, made.clients.url(name)) | (asked if name == READER else {}) for name in CLIENTS]
        )

    def mend(self) -> None:
        """Be well from now on."""
        self._fault = ""
        self._mended.set()

    def _open(self, path: str, token: str) -> str | None:
        if path != READER:
            return token
        self.clear += token.count(".") != 4
        return opened(token, self._key)[1]

    async def _publish(self, _request: web.BaseRequest) -> web.StreamResponse:
        if self._fault == "hangs":
            await self._mended.wait()
        if self._fault == "answers 503":
            return web.Response(status=503)
        return web.json_response({"keys": [public(self._key, kid="e", use="enc")]})


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param("hangs", marks=pytest.mark.fault(KEYS, "its `jwks_uri` hangs under load, and answers again")),
        pytest.param("answers 503", marks=pytest.mark.fault(KEYS, "its `jwks_uri` is down under load, and up again")),
    ],
)
@pytest.mark.timeout(600)
async def test_unavailable_client_key_defers_deliveries(made: Rig, form: Form[int], record: Record, fault: str) -> None:
    """Its logouts wait, nothing is sent in clear, and the others notice nothing. Then all of them arrive."""
    async with Reader(fault) as reader:
        reader.register(made)
        async with worker(made.site) as running, load(made.publisher, 30) as end:
            await made.more(form(45, 600))
            for name in set(CLIENTS) - {READER}:
                await made.clients.until_notified(name, {str(each) for each in made.publisher.confirmed})
            deferral = await running.until_logged("deferral", lambda line: line["cause"] == "encryption")
            assert f"its jwks_uri {reader.base}/jwks cannot be read" in deferral["error"]
            assert deferral["client_id"] == READER
            assert made.clients.at(READER) == []
            assert await running.metric("deferrals_total", client_id=READER, cause="encryption") > 0
            reader.mend()
            await end()
            await made.settle(running, patience=SLOW)
        assert reader.clear == 0
        record(await made.account(cause="none"))
