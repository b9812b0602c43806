"""Test secrets in files: settings, API tokens, and the key of subjects."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest
from pydantic import ValidationError

from notifier.model.errors import ConfigurationError, SourceFault
from notifier.settings.api_tokens import EXPIRY_WARNING_SECONDS, find_expiring_tokens, load_tokens
from notifier.settings.config_file import read_credentials
from notifier.settings.file_owners import find_foreign_file
from notifier.settings.queue_settings import QueueSettings
from notifier.settings.secret_text import secret_of
from notifier.settings.service_settings import Settings
from notifier.settings.subject_key import find_short_key, is_subject_key_missing, make_subject_key, read_subject_key
from tests.settings.config_sample import mistakes, require_single_mistake, write

# ── A secret is never empty: in a text or a file, at each setting, at start and afterwards ───────────────────────────


FILES = {
    "queue.password_file": "queue: {url: 'amqp://h', password_file: F}",
    "log.subject_key_file": "log: {subject_key_file: F}",
}
TEXTS = {"queue.password": "queue: {url: 'amqp://h', password: %s}", "log.subject_key": "log: {subject_key: %s}"}
NEWLINE = b"\n"
BLANK = ["", "\n", "\n\n \t\r\n", "\ufeff", "\ufeff\r\n", "\u00a0\n", "\u200b\n", "\0"]


@pytest.mark.parametrize("setting", FILES)
@pytest.mark.parametrize("content", BLANK)
def test_an_empty_file(tmp_path: Path, setting: str, content: str) -> None:
    """A file that is empty, or has only blank lines and invisible characters, is refused at start."""
    (tmp_path / "F").write_text(content, "utf-8", newline="")
    require_single_mistake(tmp_path, FILES[setting], setting, f"{tmp_path}/F is empty; write the secret into it")


@pytest.mark.parametrize("setting", TEXTS)
@pytest.mark.parametrize("text", ["''", "' '", r'"\n"', r'"\u200b"'])
def test_an_empty_text(tmp_path: Path, setting: str, text: str) -> None:
    """A secret in the configuration itself that is empty or blank is refused at start."""
    require_single_mistake(tmp_path, TEXTS[setting] % text, setting, "empty")


@pytest.mark.parametrize("content", BLANK)
def test_a_file_that_is_emptied_later(tmp_path: Path, content: str) -> None:
    """A reader refuses it too, and names the file: a worker reads it at each use."""
    file = tmp_path / "F"
    file.write_text("short")
    queue = QueueSettings.model_validate({"url": "amqp://h", "password_file": file})
    assert read_credentials(queue) == (None, "short")
    file.write_text(content, "utf-8", newline="")
    with pytest.raises(ConfigurationError, match=r"F: is empty; write the secret into it"):
        read_credentials(queue)
    with pytest.raises(SourceFault, match=r"token_file .*F is empty; write the secret into it"):
        secret_of("token_file", file)


def test_foreign_secret_may_be_short_and_contain_blanks(tmp_path: Path) -> None:
    """One line is used, without its line break and the blank lines around it."""
    file = tmp_path / "F"
    for content, secret in (("x", "x"), ("\ufeffa b \r\n", "a b "), ("\n\npin\n\n", "pin")):
        file.write_text(content, "utf-8", newline="")
        assert secret_of("token_file", file) == secret
    file.write_text("one\ntwo\n")
    with pytest.raises(SourceFault, match="must hold one line of text"):
        secret_of("token_file", file)


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("token: ''", "tokens.yaml[0].token: must not be empty"),
        ("token: ' '", "tokens.yaml[0].token: must not be empty"),
        (f"token_sha256: {sha256(b'').hexdigest()}", "the digest of an empty text"),
        (f"token_sha256: {sha256(NEWLINE).hexdigest()}", "the digest of an empty text"),
    ],
)
def test_an_empty_api_token(tmp_path: Path, token: str, expected: str) -> None:
    """It is refused also as its SHA-256, which a script computes from an unset variable."""
    with pytest.raises(ConfigurationError) as caught:
        load_tokens(write(tmp_path, f"- {{name: a, scopes: [read], {token}}}", "tokens.yaml"))
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("queue: {url: 'amqp://u:@h'}", "queue.url"),
        ("registry: {defaults: {'https://a': {proxy: 'http://u:@h:3128'}}}", 'registry.defaults["https://a"].proxy'),
    ],
)
def test_an_empty_password_in_a_url(tmp_path: Path, text: str, setting: str) -> None:
    """A colon without a password is refused; a user without a colon is accepted."""
    assert mistakes(write(tmp_path, text)) == {setting: "has an empty password; remove the colon, or give the password"}


def test_no_password_in_a_wrong_place_is_shown(tmp_path: Path) -> None:
    """A flow mapping parses a list of URLs without brackets as keys."""
    for name, text in (
        ("n.yaml", "queue: {url: a, amqp://u:hunter2@b: 1, amqp://u:hunter2@b: 2}"),
        ("n.json", '{"queue": {"amqp://u:hunter2@b": 1, "amqp://u:hunter2@b": 2}}'),
    ):
        (error,) = mistakes(write(tmp_path, text, name)).values()
        assert "[password]@b' is there twice" in error
        assert "hunter2" not in error


# ── The tokens of the API ─────────────────────────────────────────────────────────────────────────────────────────


class TestTokens:
    def test_only_digests_are_kept(self, tmp_path: Path) -> None:
        """A token may be given in plain text or as its SHA-256; only the digest is kept."""
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

    def test_errors_of_a_tokens_file(self, tmp_path: Path) -> None:
        """Errors are reported at once, with the position in the file and without the token."""
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
        """The check warns of tokens that have expired or will within two weeks, by their names."""
        path = write(
            tmp_path,
            "- {name: a, token: x, scopes: [read], expires: '2025-06-15T15:06:40Z'}\n"
            "- {name: b, token: y, scopes: [read], expires: 2025-06-15T17:06:40+02:00}\n"
            "- {name: c, token: z, scopes: [read]}\n",
        )
        a, b, c = load_tokens(path)
        assert (a.expires, b.expires, c.expires) == (1_750_000_000.0, 1_750_000_000.0, None)
        assert not list(find_expiring_tokens((a, c), 1_750_000_000.0 - EXPIRY_WARNING_SECONDS))
        [soon] = find_expiring_tokens((a, c), 1_750_000_001.0 - EXPIRY_WARNING_SECONDS)
        assert str(soon).startswith("api.tokens_file: token 'a': expires at 2025-06-15 15:06:40Z")
        [over] = find_expiring_tokens((a, c), 1_750_000_000.0)
        assert "has expired at" in str(over)

    def test_expiry_of_a_token_requires_an_offset(self, tmp_path: Path) -> None:
        """Otherwise the time zone would be unknown."""
        path = write(tmp_path, "- {name: a, token: x, scopes: [read], expires: '2025-06-15T15:06:40'}\n")
        with pytest.raises(ConfigurationError, match="expires"):
            load_tokens(path)

    def test_not_a_list(self, tmp_path: Path) -> None:
        """An empty file is not an empty list of tokens: it may be half-written."""
        with pytest.raises(ConfigurationError, match="must be a list"):
            load_tokens(write(tmp_path, ""))


# ── The key by which logs hash users: created once, private, beside the embedded queue ───────────────────────────────


def settings_of(folder: Path, url: str = "sqlite:n.db", **log: object) -> Settings:
    """Return the settings of a file in this folder."""
    return Settings.model_validate({"queue": {"url": url}, "log": log}, context={"base": folder})


def test_subject_key_is_created_once_and_private(tmp_path: Path) -> None:
    """For any umask; the next start keeps it."""
    settings = settings_of(tmp_path)
    assert read_subject_key(settings) is None
    file = make_subject_key(settings)
    assert file == tmp_path / "n.db.subject-key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    key = read_subject_key(settings)
    assert key is not None
    assert len(key) == 64
    make_subject_key(settings)
    assert read_subject_key(settings) == key
    assert [each.name for each in tmp_path.iterdir()] == ["n.db.subject-key"]


def test_concurrent_starts_create_one_key(tmp_path: Path) -> None:
    """All read the same complete key."""
    settings = settings_of(tmp_path)

    def start(_: int) -> str | None:
        make_subject_key(settings)
        return read_subject_key(settings)

    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(start, range(64)))
    assert len(keys) == 1
    assert len(keys.pop() or "") == 64


@pytest.mark.parametrize(
    ("url", "log", "missing"),
    [
        ("sqlite:n.db", {"subject": "omit"}, False),
        ("sqlite:n.db", {"subject_key": "configured"}, False),
        ("amqp://mq/", {}, True),
        ("amqp://mq/", {"subject": "raw"}, False),
        ("amqp://mq/", {"subject_key": "configured"}, False),
    ],
)
def test_no_key_is_created_if_configured_or_on_rabbitmq(
    tmp_path: Path, url: str, log: dict[str, object], missing: bool
) -> None:
    """A configured key is used; on RabbitMQ an operator must give all workers the same."""
    settings = settings_of(tmp_path, url, **log)
    make_subject_key(settings)
    assert is_subject_key_missing(settings) == missing
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("log", "warned"),
    [
        ({"subject_key": "k" * 15}, "log.subject_key"),
        ({"subject_key": "ü" * 8}, None),
        ({"subject_key": "k" * 16}, None),
        ({"subject_key_file": "short"}, "log.subject_key_file"),
        ({"subject_key_file": "short", "subject": "omit"}, None),
        ({"subject_key_file": "short", "subject": "raw"}, None),
        ({}, None),
    ],
)
def test_short_key_is_reported(tmp_path: Path, log: dict[str, object], warned: str | None) -> None:
    """A key below 16 bytes can be guessed by readers of the logs; only its length is shown."""
    (tmp_path / "short").write_text("hunter2\n")
    warning = find_short_key(settings_of(tmp_path, "amqp://mq/", **log))
    assert (None if warning is None else warning.path) == warned
    assert "hunter2" not in str(warning)


def test_emptied_key_is_refused(tmp_path: Path) -> None:
    """Nothing is hashed with an empty key; the text has the file."""
    settings = settings_of(tmp_path)
    file = make_subject_key(settings)
    assert file is not None
    file.write_text("\n")
    with pytest.raises(ConfigurationError, match=r"n\.db\.subject-key: is empty; write a key into it"):
        read_subject_key(settings)


@pytest.mark.parametrize("kind", ["link", "writable by others"])
def test_key_of_another_user_is_refused(tmp_path: Path, kind: str) -> None:
    """Where others may write to the folder: whoever knows the key can find users in the logs."""
    settings = settings_of(tmp_path)
    file = tmp_path / "n.db.subject-key"
    if kind == "link":
        (tmp_path / "theirs").write_text("known to them\n")
        file.symlink_to(tmp_path / "theirs")
    else:
        file.write_text("known to them\n")
        file.chmod(0o666)
    assert read_subject_key(settings) == "known to them", "nobody else may write to the folder"
    tmp_path.chmod(0o777)
    with pytest.raises(ValidationError, match=r"n\.db\.subject-key (is a link|may be written to by others)"):
        settings_of(tmp_path)


def test_own_files_in_a_shared_folder_are_used(tmp_path: Path) -> None:
    """As in an `emptyDir` of Kubernetes, or in /tmp. So are those of the folder's owner and group, for commands."""
    tmp_path.chmod(0o777)
    settings = settings_of(tmp_path)
    assert make_subject_key(settings) is not None
    assert read_subject_key(settings) is not None
    (tmp_path / "n.db").write_text("")
    assert find_foreign_file(tmp_path / "n.db", tmp_path / "missing") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_owner_decides_in_a_shared_folder(tmp_path: Path) -> None:
    """A file of root, of this user or of the folder's owner is trusted."""
    file = tmp_path / "n.db"
    file.write_text("")
    os.chown(file, 1234, 1234)
    assert find_foreign_file(file) is None
    tmp_path.chmod(0o1777)
    text = "belongs to another user (1234; this one is 0), and others may write to its folder (mode 1777): remove it if"
    assert text in str(find_foreign_file(file))
    os.chown(tmp_path, 1234, 1234)
    assert find_foreign_file(file) is None
