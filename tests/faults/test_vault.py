"""The signing key is in a Vault that is sealed under load: nothing can be signed, and nothing is lost."""

from pathlib import Path

import pytest

from tests.faults.conftest import Form, Record
from tests.faults.embedded_rig import embedded
from tests.faults.faulty_key_services import KeyService
from tests.faults.key_service_faults import suffer
from tests.vault.vault_process import RunningVault, running_vault


class Seal:
    """Of a Vault."""

    def __init__(self, vault: RunningVault) -> None:
        self._vault = vault

    def be(self, what: str) -> None:
        """Unseal it if it is to be `well`, else seal it."""
        if what == "well":
            self._vault.unseal()
        else:
            self._vault.do("PUT", "sys/seal")


@pytest.mark.fault(
    "signing key", "in a Vault that is sealed under load: deliveries wait, and follow once it is unsealed"
)
@pytest.mark.timeout(600)
async def test_sealed(tmp_path: Path, form: Form[int], record: Record) -> None:
    """Each time it is unsealed all goes on by itself, with the token that it had. That token is in no log."""
    times = form(1, 5)
    with running_vault() as vault:
        key = vault.key("logout", "ecdsa-p256")
        token = vault.token(vault.allow("notifier", key))
        (tmp_path / "vault-token").write_text(token)
        placed = {"address": vault.address, "key": key, "version": 1, "token_file": str(tmp_path / "vault-token")}
        service = KeyService(kind="vault", key=placed, environ={}, secret=token, mood=Seal(vault))
        async with embedded(tmp_path) as made:
            record(await suffer(made, service, [("sealed", "away")] * times, form(20, 60)), times=times)
