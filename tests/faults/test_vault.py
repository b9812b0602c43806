"""The signing key is in a Vault that is sealed under load: nothing can be signed, and nothing is lost."""

import json
from pathlib import Path

import pytest

from tests.faults.conftest import Form, Tell
from tests.faults.embedded_rig import EmbeddedRig, embedded
from tests.faults.rig import load
from tests.system.site import ISSUER
from tests.system.waiting import until
from tests.system.worker_process import WorkerProcess, worker
from tests.vault.vault_process import RunningVault, running_vault

HELD = 20  # deliveries that are put off, at least, each time


def sign_there(made: EmbeddedRig, vault: RunningVault) -> None:
    """Have the issuer's key in Vault alone, with a token that may use this key and no other."""
    token = made.site.folder / "vault-token"
    key = vault.key("logout", "ecdsa-p256")
    token.write_text(vault.token(vault.allow("notifier", key)))
    placed = {"address": vault.address, "key": key, "version": 1, "token_file": str(token)}
    made.site.config["issuers"][ISSUER]["keys"] = [{"vault": placed}]
    made.site.write()


async def held(running: WorkerProcess) -> float:
    """The deliveries that were put off because nothing could be signed."""
    return await running.metric("deferrals_total", cause="signing")


async def until_held(running: WorkerProcess, wanted: float) -> None:
    """Wait until so many were put off."""
    await until(lambda: held(running), lambda now: now >= wanted)


@pytest.mark.fault(
    "signing key", "in a Vault that is sealed under load: deliveries wait, and follow once it is unsealed"
)
@pytest.mark.timeout(600)
async def test_sealed(tmp_path: Path, form: Form[int], tell: Tell) -> None:
    """Each time it is unsealed all goes on by itself, with the token that it had. That token is in no log."""
    times = form(1, 5)
    with running_vault() as vault:
        async with embedded(tmp_path) as made:
            sign_there(made, vault)
            async with worker(made.site) as running:
                async with load(made.publisher, rate=60) as end:
                    for _ in range(times):
                        await made.more(60)
                        with vault.sealed():
                            await until_held(running, await held(running) + HELD)
                    await made.more(60)
                    await end()
                await made.until_settled()
                failing = running.said("signer_failing")
                assert failing
                assert all("Vault is sealed" in line["reason"] for line in failing), json.dumps(failing)
                assert (tmp_path / "vault-token").read_text() not in running.log
                assert await running.stop() == 0
            tell(await made.account(cause="sealed"), times=times)
