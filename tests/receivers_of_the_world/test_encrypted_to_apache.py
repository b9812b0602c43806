"""Encrypted tokens and a real mod_auth_openidc: it decrypts RSA-OAEP, and other tokens become dead letters."""

import json
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from joserfc.jwk import RSAKey

from notifier.delivery.channels import BackChannel
from notifier.delivery.line_and_parking import AdmittedDelivery
from notifier.delivery.ports import Tools
from notifier.delivery.verdict import Dead, Done, RetryAt
from notifier.model.client import Client, ContentEncryption, KeyManagement
from notifier.model.delivery import Delivery
from notifier.model.message import Lane
from notifier.model.outcome import DeadReason
from notifier.model.presets import PRESETS
from notifier.operators.doctor.doctor_clients import judge_registry
from notifier.tokens.client_encryption import ClientEncryption, ClientKeyReader
from notifier.tokens.key_ring import KeyRing
from tests.configuration.clients.registry_sample import registry
from tests.network.http.http_requests import opened
from tests.receivers_of_the_world.test_mod_auth_openidc import KEY, Browser, signed_in
from tests.support.no_pauses import NoPauses
from tests.support.one_attempt import DecidedAttempt, attempt
from tests.tokens.key_folder import Folder

ENC = RSAKey.generate_key(2048, {"kid": "e1", "use": "enc"})
OPENED = [
    ContentEncryption.A128CBC_HS256,
    ContentEncryption.A256CBC_HS512,
    ContentEncryption.A128GCM,
    ContentEncryption.A256GCM,
]


class Worker:
    """A worker's attempts at one client, by its registration."""

    def __init__(self, folder: Path, iss: str, url: str) -> None:
        self._folder = folder
        self._iss = iss
        self._url = url
        keys = Folder(folder)
        self.ring: KeyRing = keys.ring(keys.source(KEY.as_dict(private=True)))

    def client(self, alg: str, enc: str = ContentEncryption.A128CBC_HS256) -> Client:
        members = {
            "client_id": "rp",
            "backchannel_logout_uri": f"{self._url}/protected/callback?logout=backchannel",
            "id_token_encrypted_response_alg": alg,
            "id_token_encrypted_response_enc": enc,
            "jwks": {"keys": [ENC.as_dict(private=False)]},
            "notifier": {"preset": "mod_auth_openidc"},
        }
        open_to = {"allow": ["127.0.0.0/8"], "allow_http": True}
        return registry(self._folder, f"[{json.dumps(members)}]", self._iss, egress=open_to).clients_of(self._iss)["rp"]

    async def tell(self, client: Client, delivery: Delivery) -> DecidedAttempt:
        reader = ClientKeyReader()
        encryption = ClientEncryption(reader.read, time.monotonic)
        ring = KeyRing({self._iss: self.ring.keys_of("https://id.example.com")})
        async with opened() as transport:
            channel = BackChannel(ring, clock=time.time, new_jti=lambda: uuid4().hex, encrypter=encryption)
            monotonic: dict[str, Any] = {"clock": time.time, "monotonic": time.monotonic, "jitter": lambda: 0.5}
            return await attempt(
                AdmittedDelivery(delivery=delivery, client=client, lane=Lane.EVENTS),
                Tools(
                    channels=dict.fromkeys(("back_channel", "front_channel"), channel),
                    transport=transport,
                    observe=lambda _: None,
                    pauses=NoPauses(),
                    **monotonic,
                ),
            )

    def delivery(self, sid: str) -> Delivery:
        return Delivery(id="d", event_id="e", id_given=True, iss=self._iss, client_id="rp", sub="alice", sid=sid)


def its_key(folder: Path) -> str:
    """Return the line with the client's private key for Apache."""
    file = folder / "enc.pem"
    file.write_bytes(ENC.as_pem(private=True))
    file.chmod(0o644)  # Apache reads as another user
    return f'OIDCPrivateKeyFiles "e1#{file}"'


async def test_apache_decrypts_rsa_oaep_and_refuses_the_rest(tmp_path: Path) -> None:
    """Each `enc` ends its session and no other. RSA-OAEP-256 is a dead letter that names the receiver's limit."""
    sids = [*OPENED, "stays"]
    async with signed_in(*sids, more=its_key(tmp_path)) as (server, url, browsers):
        worker = Worker(tmp_path, server.iss, url)
        for enc, browser in zip(OPENED, browsers, strict=False):
            result = await worker.tell(worker.client(KeyManagement.RSA_OAEP, enc), worker.delivery(enc))
            assert result.verdict == Done(), enc
            assert not await browser.signed_in(), enc
        await _refused(worker, browsers[-1])


async def _refused(worker: Worker, browser: Browser) -> None:
    client = worker.client(KeyManagement.RSA_OAEP_256)
    delivery, verdict = worker.delivery("stays"), None
    for _ in range(4):
        result = await worker.tell(client, delivery)
        delivery, verdict = result.delivery, result.verdict
        if not isinstance(verdict, RetryAt):
            break
    assert isinstance(verdict, Dead)
    assert verdict.reason is DeadReason.REJECTED_TOKEN
    assert "preset mod_auth_openidc takes encrypted tokens by RSA-OAEP alone" in verdict.text
    assert "registered with RSA-OAEP-256, so it answers 400" in verdict.text
    assert await browser.signed_in()


@pytest.mark.parametrize("alg", sorted(set(KeyManagement) - {KeyManagement.RSA_OAEP}))
def test_doctor_warns_before_a_token_is_sent(tmp_path: Path, alg: str) -> None:
    """The finding has the supported algorithms, and the registration to use instead."""
    worker = Worker(tmp_path, "https://id.example.com", "http://127.0.0.1:1")
    [finding] = judge_registry([worker.client(alg)])
    assert f"by RSA-OAEP alone, and the client is registered with {alg}" in finding.text
    assert finding.advice == "register another id_token_encrypted_response_alg"
    assert not list(judge_registry([worker.client(KeyManagement.RSA_OAEP)]))
    assert PRESETS["mod_auth_openidc"].decrypts == frozenset({KeyManagement.RSA_OAEP})
