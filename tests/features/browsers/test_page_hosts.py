"""The host of an issuer's pages is the issuer's own."""

from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from tests.configuration.clients.registry_sample import HOOK, ONE, TWO
from tests.configuration.clients.test_authority import laid, of_file, of_list, row, shop, told


@pytest.mark.parametrize("own", ["https://pages.example.com/logout", "https://pages.example.com:8080/logout"])
def test_no_list_has_browsers_call_the_pages_themselves(tmp_path: Path, own: str) -> None:
    """With the cookies of their host. For a client of another issuer it is an address like any."""
    (tmp_path / "web.key").write_bytes(Fernet.generate_key())
    pages = {ONE: {"url": "https://pages.example.com/connect/notify"}}
    web = {"listen": "127.0.0.1:0", "keys_file": str(tmp_path / "web.key"), "issuers": pages}
    said = row(frontchannel_logout_uri=own)
    made = laid(tmp_path, of_list(said, issuer=ONE), of_list(said, name="two", issuer=TWO), web=web)
    assert (shop(made).backchannel_logout_uri, shop(made).front_channel) == (HOOK, None)
    assert shop(made, TWO).front_channel is not None
    [left] = told(made)
    assert "the issuer's own host: browsers would send its cookies along" in left
    by_file = of_file({"client_id": "shop", "frontchannel_logout_uri": own})
    assert shop(laid(tmp_path, of_list(row(), issuer=ONE), by_file, web=web)).front_channel is not None
