"""A client whose tokens are encrypted, under load: its keys cannot be had, or it opens nothing by the old one."""

import asyncio

import pytest
from aiohttp import web
from jwcrypto.common import JWException
from jwcrypto.jwk import JWK

from tests.faults.conftest import Form, Tell
from tests.faults.rig import CLIENTS, Rig, load
from tests.system.loopback import LoopbackServer
from tests.system.site import client
from tests.system.worker_process import WorkerProcess, worker
from tests.tokens.encryption_keys import opened, public

READER = "healthy"
SLOW = 400.0  # seconds for the last delivery: one that was put off again and again comes back after 256 s at most
KEYS = "keys of a client"


class Reader(LoopbackServer):
    """What that client publishes, and how it opens what it is sent. Not `well`, it hangs, or answers 503."""

    def __init__(self, fault: str = "") -> None:
        super().__init__(self._publish)
        self.refused = 0
        self.clear = 0
        self._fault = fault
        self._mended = asyncio.Event()
        self._turn = 0
        self._key = _new()

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

    def rotate(self) -> None:
        """Have another key at once, and no longer the old one."""
        self._key, self._turn = _new(), self._turn + 1

    def _open(self, path: str, token: str) -> str | None:
        if path != READER:
            return token
        self.clear += token.count(".") != 4
        try:
            return opened(token, self._key)[1]
        except JWException:
            self.refused += 1
            return None

    async def _publish(self, _request: web.BaseRequest) -> web.StreamResponse:
        if self._fault == "hangs":
            await self._mended.wait()
        if self._fault == "answers 503":
            return web.Response(status=503)
        return web.json_response({"keys": [public(self._key, kid=f"e{self._turn}", use="enc")]})


def _new() -> JWK:
    return JWK.generate(kty="EC", crv="P-256")


async def _others_are_told(made: Rig) -> None:
    """All that was confirmed until now has come to the client that refuses some, and to the flaky one."""
    for name in set(CLIENTS) - {READER}:
        await made.clients.until_told(name, {str(each) for each in made.publisher.confirmed})


async def _held(running: WorkerProcess) -> float:
    return await running.metric("deferrals_total", client_id=READER, cause="encryption")


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param("hangs", marks=pytest.mark.fault(KEYS, "its `jwks_uri` hangs under load, and answers again")),
        pytest.param("answers 503", marks=pytest.mark.fault(KEYS, "its `jwks_uri` is down under load, and up again")),
    ],
)
@pytest.mark.timeout(600)
async def test_a_key_that_cannot_be_had(made: Rig, form: Form[int], tell: Tell, fault: str) -> None:
    """Its logouts wait, nothing is sent in clear, and the others notice nothing. Then all of them arrive."""
    async with Reader(fault) as reader:
        reader.register(made)
        async with worker(made.site) as running, load(made.publisher, 30) as end:
            await made.more(form(45, 600))
            await _others_are_told(made)
            deferral = await running.until_said("deferral", lambda line: line["cause"] == "encryption")
            assert f"its jwks_uri {reader.base}/jwks cannot be read" in deferral["error"]
            assert deferral["client_id"] == READER
            assert made.clients.at(READER) == []
            assert await _held(running) > 0
            reader.mend()
            await end()
            await made.settle(running, patience=SLOW)
        assert (reader.clear, reader.refused) == (0, 0)
        tell(await made.account(cause="none"))


@pytest.mark.fault(KEYS, "its key changed under load: it refuses the old one")
@pytest.mark.timeout(600)
async def test_a_key_that_changes(made: Rig, form: Form[int], tell: Tell) -> None:
    """Its 400s are held back, the new key is read at once, and no delivery comes nearer to its end by them."""
    async with Reader() as reader:
        reader.register(made)
        async with worker(made.site) as running, load(made.publisher, 30) as end:
            await made.more(form(30, 600))
            reader.rotate()
            await made.more(form(30, 600))
            await _others_are_told(made)
            await end()
            await made.until_settled()
            assert await _held(running) > 0
            assert await running.metric("dead_letters_total", reason="rejected_token") == 0
            assert await running.stop() == 0
        assert reader.refused > 0
        assert reader.clear == 0
        tell(await made.account(cause="none"))
