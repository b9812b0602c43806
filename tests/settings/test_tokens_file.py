"""The tokens of the API."""

from pathlib import Path

import pytest

from notifier.model.errors import ConfigurationError
from notifier.settings.tokens_file import SOON, expiring, load_tokens
from tests.settings.config_sample import write


class TestTokens:
    def test_only_digests_are_kept(self, tmp_path: Path) -> None:
        """A token may be given itself or by its SHA-256, and is known by that alone."""
        digest = "b1" * 32
        path = write(
            tmp_path,
            f"- {{name: idp, token: hunter2, scopes: [publish]}}\n"
            f"- {{name: ops, token_sha256: {digest}, scopes: [read, repair], issuers: ['https://a']}}\n",
        )
        idp, ops = load_tokens(path, ["https://a"])
        assert idp.sha256.hex().startswith("f52fbd32b2b3b86f")
        assert idp.scopes == frozenset({"publish"})
        assert idp.issuers is None
        assert ops.sha256.hex() == digest
        assert ops.scopes == frozenset({"read", "repair"})
        assert ops.issuers == frozenset({"https://a"})

    def test_every_mistake(self, tmp_path: Path) -> None:
        """Mistakes are told at once, with the place in the file and without the token."""
        path = write(
            tmp_path,
            """
- {name: a, token: hunter2, scopes: [publish]}
- {name: a, token: hunter2, scopes: [publish]}
- {name: b, scopes: [publish]}
- {name: c, token: hunter2, token_sha256: 00, scopes: [write], issuer: x}
- {name: d, token: x, scopes: [], issuers: [nobody]}
- {name: e, token: y, scopes: [read], issuers: [nobody]}
""",
            "tokens.yaml",
        )
        with pytest.raises(ConfigurationError) as caught:
            load_tokens(path, ["https://a"])
        assert [mistake.path for mistake in caught.value.mistakes] == [
            "tokens.yaml[1].name",
            "tokens.yaml[1]",
            "tokens.yaml[2]",
            "tokens.yaml[3].token_sha256",
            "tokens.yaml[3].scopes[0]",
            "tokens.yaml[3].issuer",
            "tokens.yaml[4].scopes",
            "tokens.yaml[5].issuers",
        ]
        assert "hunter2" not in str(caught.value)

    def test_a_token_may_expire(self, tmp_path: Path) -> None:
        """The check warns of those that have expired, or will within two weeks, by their names."""
        path = write(
            tmp_path,
            "- {name: a, token: x, scopes: [read], expires: '2025-06-15T15:06:40Z'}\n"
            "- {name: b, token: y, scopes: [read], expires: 2025-06-15T17:06:40+02:00}\n"
            "- {name: c, token: z, scopes: [read]}\n",
        )
        a, b, c = load_tokens(path)
        assert (a.expires, b.expires, c.expires) == (1_750_000_000.0, 1_750_000_000.0, None)
        assert not list(expiring((a, c), 1_750_000_000.0 - SOON))
        [soon] = expiring((a, c), 1_750_000_001.0 - SOON)
        assert str(soon).startswith("api.tokens_file: token 'a': expires at 2025-06-15 15:06:40Z")
        [over] = expiring((a, c), 1_750_000_000.0)
        assert "has expired at" in str(over)

    def test_when_a_token_expires_has_an_offset(self, tmp_path: Path) -> None:
        """Else nobody knows which hour is meant."""
        path = write(tmp_path, "- {name: a, token: x, scopes: [read], expires: '2025-06-15T15:06:40'}\n")
        with pytest.raises(ConfigurationError, match="expires"):
            load_tokens(path)

    def test_not_a_list(self, tmp_path: Path) -> None:
        """An empty file is no list of tokens: it may be half written."""
        with pytest.raises(ConfigurationError, match="must be a list"):
            load_tokens(write(tmp_path, ""))
