"""A key in AWS KMS, which fails under load. Azure's and Google's are in `test_clouds_whole.py`."""

from pathlib import Path

import pytest

from tests.faults.conftest import Form, Record
from tests.faults.embedded_rig import embedded
from tests.faults.faulty_key_services import TOLD, ServiceFault, aws
from tests.faults.key_service_faults import suffer

WHAT = "throttles, hangs, answers 500, signs wrongly and locks the worker out, under load"


@pytest.mark.fault("AWS KMS", WHAT)
@pytest.mark.timeout(600)
async def test_no_logout_is_lost_by_aws(tmp_path: Path, form: Form[int], record: Record) -> None:
    """Deliveries wait, and go out once it signs again. No client sees a bad token, no other issuer waits.

    The short form has two of the faults: deliveries that meet many wait long.
    """
    faults = [*TOLD] * form(0, 1) or [ServiceFault.THROTTLES, ServiceFault.LOCKED_OUT]
    async with aws(tmp_path) as service, embedded(tmp_path) as made:
        record(await suffer(made, service, [(each, TOLD[each]) for each in faults], form(20, 40)), times=len(faults))
