"""A key in a PKCS#11 token, as an operator uses it: check, keys jwks, run, and a PIN that is corrected meanwhile."""

import json
import time
from pathlib import Path

from tests.softhsm import PIN, SoftHsm
from tests.system.clients import Clients
from tests.system.command import notifier
from tests.system.site import ISSUER, OTHER, Site, client
from tests.system.worker_process import worker
from tests.verifier import verify


async def test_a_client_verifies_by_keys_jwks_what_the_hsm_signs(
    tmp_path: Path,
) -> None:
    """With a wrong PIN its deliveries wait, and those of others do not; once the file is right they go out."""
    hsm = SoftHsm(tmp_path / "hsm")
    hsm.pin_file.write_text("9999")
    async with Clients() as clients:
        site = Site(tmp_path, f"sqlite:{tmp_path / 'queue.db'}")
        site.config["issuers"][ISSUER]["keys"] = [{"pkcs11": hsm.settings("ec")}]
        site.write()
        site.write_clients([client("shop", clients.url("shop")), client("mail", clients.url("mail"), OTHER)])
        refused = notifier("check", "-c", site.file, cwd=tmp_path, settings=hsm.environ)
        assert refused.returncode == 2
        assert f'issuers["{ISSUER}"].keys[0].pkcs11: the PIN is wrong' in refused.stderr
        async with worker(site, settings=hsm.environ) as running:
            failing = await running.until_said("signer_failing")
            assert failing["signer"] == "pkcs11 idp/ec"
            for iss, name in ((ISSUER, "shop"), (OTHER, "mail")):
                event = {"iss": iss, "sub": "alice", "sid": "s1", "clients": [name]}
                assert (await running.post(event))[0] == 202
            await running.until_metric(1, "deliveries_settled_total", iss=OTHER, fate="delivered")
            deferral = await running.until_said("deferral")
            assert (deferral["iss"], deferral["cause"]) == (ISSUER, "signing")
            hsm.pin_file.write_text(PIN)
            await running.until_said("signer_well")
            await running.until_metric(1, "deliveries_settled_total", iss=ISSUER, fate="delivered")
            assert await running.stop() == 0
        jwks = json.loads(
            notifier("keys", "jwks", "-c", site.file, "--issuer", ISSUER, cwd=tmp_path, settings=hsm.environ).stdout
        )
        [hit] = clients.at("shop")
        assert verify(hit.token, jwks, iss=ISSUER, aud="shop", now=time.time())["sid"] == "s1"
        done = notifier("check", "-c", site.file, cwd=tmp_path, settings=hsm.environ)
        assert (done.returncode, jwks["keys"][0]["kid"] in done.stdout) == (0, True)
