"""A secret is never empty: in a text or a file, at each setting that has one, at the start and afterwards."""

from hashlib import sha256
from pathlib import Path

import pytest

from notifier.configuration.clients.secret_file import read_secret
from notifier.model.errors import ConfigurationError, SourceFault
from notifier.settings.config_file import read_credentials
from notifier.settings.service_settings import QueueSettings
from notifier.settings.tokens_file import load_tokens
from tests.settings.config_sample import mistakes, write

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
        read_secret("token_file", file)


def test_what_another_system_chose_may_be_short_and_have_blanks(tmp_path: Path) -> None:
    """One line counts, without its line break and the blank lines around it."""
    file = tmp_path / "F"
    for content, secret in (("x", "x"), ("\ufeffa b \r\n", "a b "), ("\n\npin\n\n", "pin")):
        file.write_text(content, "utf-8", newline="")
        assert read_secret("token_file", file) == secret
    file.write_text("one\ntwo\n")
    with pytest.raises(SourceFault, match="must hold one line of text"):
        read_secret("token_file", file)


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
