"""An HSM that fails under load: SoftHSM behind a module that hangs, crashes, fails, forgets, lies or is slow.

The key of one issuer is there; that of the other is a file, and its logouts must not notice.
"""

import pytest

from tests.faults.conftest import Form, Record
from tests.faults.faulty_key_services import KeyService
from tests.faults.key_service_faults import suffer
from tests.faults.rig import Rig
from tests.support.softhsm import SoftHsm


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
async def test_no_logout_is_lost(
    made: Rig, form: Form[int], record: Record, hsm: SoftHsm, fault: str, result: str
) -> None:
    """Its deliveries wait, and go out once it signs again. No client sees a bad token, no other issuer waits."""
    times = form(1, 5)
    faulty = hsm.faulty()
    service = KeyService(kind="pkcs11", key=hsm.settings("ec", faulty.path), environ=hsm.environ, mood=faulty)
    record(await suffer(made, service, [(fault, result)] * times, form(20, 60)), times=times)
