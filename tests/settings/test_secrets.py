"""Secrets in files: settings, API tokens, and the key of subjects."""

import stat
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest

from notifier.model.errors import ConfigurationError, SourceFault
from notifier.settings.config_file import read_credentials
from notifier.settings.queue_settings import QueueSettings
from notifier.settings.secret_text import secret_of
from notifier.settings.service_settings import Settings
from notifier.settings.subject_key import find_short_key, is_subject_key_missing, make_subject_key, read_subject_key
from notifier.settings.tokens_file import EXPIRY_WARNING_SECONDS, find_expiring_tokens, load_tokens
from tests.settings.config_sample import mistakes, write

# ── A secret is never empty: in a text or a file, at each setting that has one, at the start and afterwards ───────


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
    """The start refuses a file that is empty, or has blank lines and invisible characters alone."""
    (tmp_path / "F").write_text(content, "utf-8", newline="")
    found = mistakes(write(tmp_path, FILES[setting]))
    assert found == {setting: f"{tmp_path}/F is empty; write the secret into it"}


@pytest.mark.parametrize("setting", TEXTS)
@pytest.mark.parametrize("text", ["''", "' '", r'"\n"', r'"\u200b"'])
def test_an_empty_text(tmp_path: Path, setting: str, text: str) -> None:
    """The start refuses a secret in the configuration itself that is empty or has blanks alone."""
    found = mistakes(write(tmp_path, TEXTS[setting].replace("%s", text)))
    assert list(found) == [setting]
    assert "empty" in found[setting]


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


def test_what_another_system_chose_may_be_short_and_have_blanks(tmp_path: Path) -> None:
    """One line counts, without its line break and the blank lines around it."""
    file = tmp_path / "F"
    for content, secret in (("x", "x"), ("\ufeffa b \r\n", "a b "), ("\n\npin\n\n", "pin")):
        file.write_text(content, "utf-8", newline="")
        assert secret_of("token_file", file) == secret
    file.write_text("one\ntwo\n")
    with pytest.raises(SourceFault, match="must hold one line of text"):
        secret_of("token_file", file)


@pytest.mark.parametrize(
    ("token", "says"),
    [
        ("token: ''", "tokens.yaml[0].token: must not be empty"),
        ("token: ' '", "tokens.yaml[0].token: must not be empty"),
        (f"token_sha256: {sha256(b'').hexdigest()}", "that of an empty text"),
        (f"token_sha256: {sha256(NEWLINE).hexdigest()}", "that of an empty text"),
    ],
)
def test_an_empty_api_token(tmp_path: Path, token: str, says: str) -> None:
    """It is refused also by its SHA-256, as a script makes it of a variable that is not set."""
    with pytest.raises(ConfigurationError) as caught:
        load_tokens(write(tmp_path, f"- {{name: a, scopes: [read], {token}}}", "tokens.yaml"))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("queue: {url: 'amqp://u:@h'}", "queue.url"),
        ("registry: {defaults: {'https://a': {proxy: 'http://u:@h:3128'}}}", 'registry.defaults["https://a"].proxy'),
    ],
)
def test_an_empty_password_in_a_url(tmp_path: Path, text: str, setting: str) -> None:
    """A colon with nothing behind it is refused; a user without a password is none."""
    assert mistakes(write(tmp_path, text)) == {setting: "has an empty password; remove the colon, or give the password"}


def test_no_password_in_a_wrong_place_is_shown(tmp_path: Path) -> None:
    """A flow mapping takes a list of URLs without brackets for keys."""
    for name, text in (
        ("n.yaml", "queue: {url: a, amqp://u:hunter2@b: 1, amqp://u:hunter2@b: 2}"),
        ("n.json", '{"queue": {"amqp://u:hunter2@b": 1, "amqp://u:hunter2@b": 2}}'),
    ):
        (said,) = mistakes(write(tmp_path, text, name)).values()
        assert "[password]@b' is there twice" in said
        assert "hunter2" not in said


# ── The tokens of the API ─────────────────────────────────────────────────────────────────────────────────────────


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
        assert not list(find_expiring_tokens((a, c), 1_750_000_000.0 - EXPIRY_WARNING_SECONDS))
        [soon] = find_expiring_tokens((a, c), 1_750_000_001.0 - EXPIRY_WARNING_SECONDS)
        assert str(soon).startswith("api.tokens_file: token 'a': expires at 2025-06-15 15:06:40Z")
        [over] = find_expiring_tokens((a, c), 1_750_000_000.0)
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


# ── The key by which logs hash users: made once, for its owner alone, beside the embedded queue ───────────────────


def settings_of(folder: Path, url: str = "sqlite:n.db", **log: object) -> Settings:
    """As a file in this folder says it."""
    return Settings.model_validate({"queue": {"url": url}, "log": log}, context={"base": folder})


def test_it_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    """Whatever the umask; the next start keeps it."""
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


def test_of_many_that_start_at_once_one_makes_it(tmp_path: Path) -> None:
    """All read the same key, and never half of one."""
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
def test_none_is_made_where_none_is_needed_or_all_workers_need_one(
    tmp_path: Path, url: str, log: dict[str, object], missing: bool
) -> None:
    """What is configured stands; on RabbitMQ somebody must give all workers the same."""
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
def test_a_key_that_can_be_guessed_is_named(tmp_path: Path, log: dict[str, object], warned: str | None) -> None:
    """A key below 16 bytes hides nobody from whoever has the logs; it is shown only by its length."""
    (tmp_path / "short").write_text("hunter2\n")
    warning = find_short_key(settings_of(tmp_path, "amqp://mq/", **log))
    assert (None if warning is None else warning.path) == warned
    assert "hunter2" not in str(warning)


def test_a_key_that_was_made_and_emptied_is_refused(tmp_path: Path) -> None:
    """Nothing is hashed with an empty key; the text names the file."""
    settings = settings_of(tmp_path)
    file = make_subject_key(settings)
    assert file is not None
    file.write_text("\n")
    with pytest.raises(ConfigurationError, match=r"n\.db\.subject-key: is empty; write a key into it"):
        read_subject_key(settings)
