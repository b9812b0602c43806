"""What the pages of packages that say how to reach clients have operators write lets that count, word for word."""

import json
import re
import textwrap
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from notifier.model.client import Algorithm
from notifier.tokens.key_files import generate_key
from tests.system.command import notifier

ROOT = Path(__file__).parents[2]
PAGES = (
    "docs/identity-servers/duende.md",
    "docs/identity-servers/identityserver4.md",
    "docs/identity-servers/keycloak.md",
    "docs/identity-servers/oidc-provider.md",
)
FILES = {
    "clients.yaml": "- {client_id: bff, notifier: {preset: duende_bff}}",
    "secrets/broker": "a-password",
    "secrets/database": "postgresql://notifier:a-password@db.example.com/idp",
    "secrets/sessions": "postgresql://notifier:a-password@db.example.com/idp",
    "web.keys": Fernet.generate_key().decode(),
}


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_prints_lets_the_addresses_of_its_server_count(page: str, tmp_path: Path) -> None:
    """`check` finds no mistake, and does not warn that they are ignored."""
    (tmp_path / "secrets").mkdir()
    (tmp_path / "keys").mkdir()
    for key in ("notifier.pem", "keys/demo.pem"):
        (tmp_path / key).write_bytes(generate_key(Algorithm.ES256))
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    blocks = re.findall(r"^ *```yaml\n(.*?)^ *```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    said = [block for block in map(textwrap.dedent, blocks) if "publishers:" in block or "inline:" in block]
    assert said
    for block in said:
        (tmp_path / "n.yaml").write_text(block)
        done = notifier("check", "-c", "n.yaml", "--offline", "--json", cwd=tmp_path)
        found = json.loads(done.stdout)
        assert found["mistakes"] == []
        warnings = [each["text"] for each in found["warnings"] if each["path"].endswith("publishers")]
        assert [text for text in warnings if "`notifier publish`" not in text] == []
