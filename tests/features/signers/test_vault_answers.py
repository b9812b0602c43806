"""Answers of Vault, or of a server in its place: bounded, and reported by their kind."""

import json
from pathlib import Path

import pytest
from aiohttp import web

from notifier.features.signers.signer_settings import VaultKeySettings
from notifier.features.signers.vault_key import VaultKey
from notifier.features.signers.vault_login import VaultAnswer, VaultServer
from notifier.model.client import Algorithm
from notifier.tokens.signer import SignatureResult, SignerError
from tests.features.signers.places import refused
from tests.support.hanging_files import hanging
from tests.system.loopback import LoopbackServer


async def asked(answer: web.Response, folder: Path) -> VaultAnswer:
    async def serve(_: web.BaseRequest) -> web.Response:
        return answer

    (folder / "token").write_text("t")
    async with LoopbackServer(serve) as server:
        caught = {"address": server.base, "key": "k", "version": 1, "token_file": str(folder / "token")}
        vault = VaultServer(VaultKeySettings.model_validate(caught))
        try:
            return await vault.ask("GET", "transit/keys/k", "t")
        finally:
            await vault.close()


async def test_a_key_of_a_thousand_versions(tmp_path: Path) -> None:
    """It is 0.6 MiB, in one member."""
    keys = {str(each): {"public_key": "x" * 600} for each in range(1000)}
    answer = await asked(web.json_response({"data": {"keys": keys}}), tmp_path)
    assert answer.content == {"data": {"keys": keys}}


async def test_a_refusal_has_vaults_text(tmp_path: Path) -> None:
    """An answer without JSON has none."""
    refusal = {"errors": ["permission denied"]}
    answer = await asked(web.json_response(refusal, status=403, headers={"Retry-After": "7"}), tmp_path)
    assert (answer.status, answer.error_text, answer.wait) == (403, "permission denied", 7.0)
    assert (await asked(web.Response(status=204), tmp_path)).content is None


@pytest.mark.parametrize(
    ("status", "headers", "body", "result", "phrase"),
    [
        (200, {}, json.dumps(["x" * 1000] * 1100).encode(), SignatureResult.AWAY, "the answer is larger than 1 MiB"),
        (200, {}, b"<html>", SignatureResult.AWAY, "the answer is not JSON"),
        (307, {"Location": "http://127.0.0.1/"}, b"", SignatureResult.WRONG, "answered 307, a redirect"),
    ],
    ids=["too much", "no JSON", "a redirect"],
)
async def test_an_invalid_answer_is_an_error(
    status: int, headers: dict[str, str], body: bytes, result: SignatureResult, phrase: str, tmp_path: Path
) -> None:
    """A redirect would take the token along, and stays until somebody corrects the address."""
    with pytest.raises(SignerError, match=phrase) as caught:
        await asked(web.Response(status=status, headers=headers, body=body), tmp_path)
    assert caught.value.result == result


async def test_a_token_file_that_hangs_is_named(tmp_path: Path) -> None:
    """Nothing else waits for it."""
    file = tmp_path / "token"
    file.write_text("t")
    settings = {"address": "http://127.0.0.1:9", "key": "k", "version": 1, "token_file": str(file)}
    key = VaultKey(VaultKeySettings.model_validate(settings))
    file.unlink()
    with hanging(file):
        fault = await refused(key, Algorithm.RS256)
        assert fault.result is SignatureResult.AWAY
        assert str(fault) == f"{file} was not read within 2 s; its file system may be unreachable"
    await key.close()
