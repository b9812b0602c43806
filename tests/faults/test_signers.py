"""An HSM that fails under load: SoftHSM behind a module that hangs, crashes, fails, forgets, lies or is slow.

The key of one issuer is there; that of the other is a file, and its logouts must not notice.
"""

import pytest

from tests.faults.conftest import Form, Tell
from tests.faults.other_issuer import OTHERS, are_unmoved, beyond, others_logouts
from tests.faults.rig import CLIENTS, Rig, answers, load
from tests.support.softhsm import SoftHsm
from tests.system.site import ISSUER, OTHER, client
from tests.system.worker_process import worker


@pytest.fixture(scope="module")
def hsm(tmp_path_factory: pytest.TempPathFactory) -> SoftHsm:
    """One token for all faults."""
    return SoftHsm(tmp_path_factory.mktemp("hsm"))


@pytest.mark.parametrize(
    ("fault", "result"),
    [
        pytest.param("hang", "slow", marks=pytest.mark.fault("HSM", "gives no answer to a signature, under load")),
        pytest.param("crash", "away", marks=pytest.mark.fault("HSM", "its library crashes its process, under load")),
        pytest.param("error", "away", marks=pytest.mark.fault("HSM", "answers a device error, under load")),
        pytest.param("forget", "away", marks=pytest.mark.fault("HSM", "forgets its session, under load")),
        pytest.param("lie", "unverified", marks=pytest.mark.fault("HSM", "makes wrong signatures, under load")),
        pytest.param("slow", "ok", marks=pytest.mark.fault("HSM", "takes 1.5 s for a signature, under load")),
    ],
)
@pytest.mark.timeout(600)
async def test_no_logout_is_lost(made: Rig, form: Form[int], tell: Tell, hsm: SoftHsm, fault: str, result: str) -> None:
    """Its deliveries wait, and go out once it signs again. No client sees a bad token, no other issuer waits."""
    times, rate = form(1, 5), form(20, 60)
    faulty = hsm.faulty()
    made.clients.judge = answers(0)
    made.site.config["issuers"][ISSUER]["keys"] = [{"pkcs11": hsm.settings("ec", faulty.path)}]
    made.site.write()
    made.site.write_clients(
        [client(name, made.clients.url(name)) for name in CLIENTS]
        + [client("other", f"{made.clients.url('healthy')}", OTHER)]
    )
    async with worker(made.site, settings=hsm.environ) as running, load(made.publisher, rate) as end:
        await made.more(rate)
        usual = await others_logouts(running)
        for _ in range(times):
            deferred = await running.metric("deferrals_total", iss=ISSUER, cause="signing")
            begun = await running.metric("signatures_total", signer="pkcs11", result=result)
            faulty.be(fault)
            await beyond(begun, running, "signatures_total", signer="pkcs11", result=result)
            await are_unmoved(running, usual)
            await beyond(deferred, running, "deferrals_total", iss=ISSUER, cause="signing")
            faulty.be("well")
            signed = await running.metric("signatures_total", signer="pkcs11", result="ok")
            await beyond(signed + 20, running, "signatures_total", signer="pkcs11", result="ok")
        await end()
        await made.until_settled(others=OTHERS)
        assert await running.metric("dead_letters_total", reason="rejected_token") == 0
        assert await running.stop() == 0
    tell(await made.account(cause="refused by the client"), times=times)
