"""Keys in Azure Key Vault and in Google Cloud KMS, which fail in each of their ways under load."""

from pathlib import Path

import pytest

from tests.faults.conftest import Form, Record
from tests.faults.embedded_rig import embedded
from tests.faults.faulty_key_services import TOLD, google, key_vault
from tests.faults.key_service_faults import suffer

WHAT = "throttles, hangs, answers 500, signs wrongly and locks the worker out, under load"


@pytest.mark.fault("Azure Key Vault", WHAT)
@pytest.mark.timeout(600)
async def test_no_logout_is_lost_by_azure(tmp_path: Path, form: Form[int], record: Record) -> None:
    """Deliveries wait, and go out once it signs again. No client sees a bad token, no other issuer waits."""
    async with key_vault(tmp_path) as service, embedded(tmp_path) as made:
        record(await suffer(made, service, TOLD.items(), form(20, 40)), times=len(TOLD))


@pytest.mark.fault("Google Cloud KMS", WHAT)
@pytest.mark.timeout(600)
async def test_no_logout_is_lost_by_google(tmp_path: Path, form: Form[int], record: Record) -> None:
    """Deliveries wait, and go out once it signs again. No client sees a bad token, no other issuer waits."""
    async with google(tmp_path) as service, embedded(tmp_path) as made:
        record(await suffer(made, service, TOLD.items(), form(20, 40)), times=len(TOLD))
