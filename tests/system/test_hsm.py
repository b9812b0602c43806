"""A key in a PKCS#11 token, as an operator uses it: check, keys jwks, run, and mistakes that are corrected."""

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from tests.support.apt_programs import program
from tests.support.proxies import ROOT
from tests.support.softhsm import PIN, SoftHsm
from tests.support.verifier import verify
from tests.system.clients import Clients
from tests.system.command import notifier, notifier_at
from tests.system.site import ISSUER, OTHER, Site, client
from tests.system.waiting import until
from tests.system.worker_process import WorkerProcess, worker


async def twice(running: WorkerProcess) -> bool:
    """True once the log names the entry that does not sign."""
    return any("has the same kid" in line["reason"] for line in running.logged("signer_failing"))


@pytest.mark.full
async def test_client_verifies_hsm_signatures_by_keys_jwks(
    tmp_path: Path,
) -> None:
    """With a wrong PIN its deliveries wait, and those of others do not; once the file is right they go out.

    Another entry turns out to be the same key: it does not sign, and is named.
    """
    hsm = SoftHsm(tmp_path / "hsm")
    hsm.pin_file.write_text("9999")
    async with Clients() as clients:
        site = Site(tmp_path, f"sqlite:{tmp_path / 'queue.db'}")
        key, same = hsm.settings("ec"), hsm.settings("ec", id="02")
        site.config["issuers"][ISSUER]["keys"] = [{"pkcs11": key}, {"pkcs11": same}]
        site.write()
        site.write_clients([client("shop", clients.url("shop")), client("mail", clients.url("mail"), OTHER)])
        refused = notifier("check", "-c", site.file, cwd=tmp_path, settings=hsm.environ)
        assert refused.returncode == 2
        assert f'issuers["{ISSUER}"].keys[0].pkcs11: the PIN is wrong' in refused.stderr
        async with worker(site, settings=hsm.environ) as running:
            failing = await running.until_logged("signer_failing")
            assert failing["signer"] in ("pkcs11 idp/ec", "pkcs11 idp/ec 02")
            for iss, name in ((ISSUER, "shop"), (OTHER, "mail")):
                event = {"iss": iss, "sub": "alice", "sid": "s1", "clients": [name]}
                assert (await running.post(event))[0] == 202
            await running.until_metric(1, "deliveries_settled_total", iss=OTHER, fate="delivered")
            deferral = await running.until_logged("deferral")
            assert (deferral["iss"], deferral["cause"]) == (ISSUER, "signing")
            reload = await notifier_at(site, "reload", settings=hsm.environ)
            assert (
                f"applied: 2 issuers, 2 clients\n  does not sign: {ISSUER}: key pkcs11 idp/ec: the PIN is wr"
                in reload.stdout
            )
            hsm.pin_file.write_text(PIN)
            running.send(signal.SIGHUP)  # or it is looked at within 30 s
            await running.until_logged("signer_well")
            await running.until_metric(1, "deliveries_settled_total", iss=ISSUER, fate="delivered")
            await until(lambda: twice(running), bool)
            status = await notifier_at(site, "status", settings=hsm.environ)
            assert "key pkcs11 idp/ec 02: has the same kid" in " ".join(status.stdout.split())
            assert await running.stop() == 0
        refused = notifier("check", "-c", site.file, cwd=tmp_path, settings=hsm.environ)
        assert refused.returncode == 2
        assert "keys[1].pkcs11: has the same kid" in refused.stderr
        assert f'as issuers["{ISSUER}"].keys[0].pkcs11; each key of an issuer needs its own' in refused.stderr
        doctor = notifier("doctor", "-c", site.file, cwd=tmp_path, settings=hsm.environ)
        assert "take one of the two entries out; until then this one does not sign" in doctor.stdout
        del site.config["issuers"][ISSUER]["keys"][1]
        site.write()
        jwks = json.loads(
            notifier("keys", "jwks", "-c", site.file, "--iss", ISSUER, cwd=tmp_path, settings=hsm.environ).stdout
        )
        [hit] = clients.at("shop")
        assert verify(hit.token, jwks, iss=ISSUER, aud="shop", now=time.time())["sid"] == "s1"
        done = notifier("check", "-c", site.file, cwd=tmp_path, settings=hsm.environ)
        assert (done.returncode, jwks["keys"][0]["kid"] in done.stdout) == (0, True)


def test_documented_hsm_setup_works(tmp_path: Path) -> None:
    """From nothing to a key that signs, by the commands and the entry as they stand there."""
    document = (ROOT / "docs/signers.md").read_text()
    [commands] = re.findall(r"```sh\n(mkdir tokens.*?)```", document, re.DOTALL)
    [entry] = re.findall(r"- (\{pkcs11: .*\})\n", document)
    program("softhsm2-util", "softhsm2")
    done = subprocess.run(["bash", "-ec", commands], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    config = {"issuers": {ISSUER: {"keys": [yaml.safe_load(entry)]}}}
    (tmp_path / "notifier.yaml").write_text(yaml.safe_dump(config))
    environ = {"SOFTHSM2_CONF": str(tmp_path / "softhsm2.conf")}
    checked = notifier("check", "-c", "notifier.yaml", cwd=tmp_path, settings=environ)
    assert checked.returncode == 0, checked.stderr
    assert "PS256, PS384, PS512, RS256" in checked.stdout
    offline = notifier("check", "--offline", "-c", "notifier.yaml", cwd=tmp_path)
    assert "  key pkcs11 idp/logout-2027: not queried, because of --offline\n" in offline.stdout
