"""Reads text files and secrets, and defines the types of secrets in settings, which must not be empty."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from notifier.model.errors import ConfigurationError, InputIssue, SourceFault
from notifier.settings.file_paths import ExistingFile, check_usable


def read_text(path: Path) -> str:
    """Return the text of a file. Raises ConfigurationError, which names the file, if it cannot be read as UTF-8."""
    try:
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise _unread(path, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise _unread(path, f"is not UTF-8 text (byte {error.start})") from None


def read_secret(path: Path) -> str:
    """Return the secret in a file, which must be its only line. Raises ConfigurationError.

    Callers read the file each time that they need the secret, because an operator may have changed it.
    """
    lines = [line for line in read_text(path).splitlines() if not is_blank(line)]
    if not lines:
        raise _unread(path, "is empty; write the secret into it")
    if len(lines) > 1 or not lines[0].isprintable():
        raise _unread(path, "must hold one line of text")
    return lines[0]


def _filled_secret(value: SecretStr) -> SecretStr:
    if is_blank(value.get_secret_value()):
        raise ValueError("must not be empty")
    return value


def is_blank(text: str) -> bool:
    """Return True if the text is empty or has only white space and invisible characters."""
    return not any(char.isprintable() and not char.isspace() for char in text)


def _find_emptiness(path: Path) -> str | None:
    """Return that the file has no secret; None if it has one, or is unreadable, which is reported on reading."""
    try:
        text = path.read_bytes().decode("utf-8", "replace")
    except OSError:
        return None
    return f"{path} is empty; write the secret into it" if is_blank(text) else None


def _unread(path: Path, text: str) -> ConfigurationError:
    return ConfigurationError([InputIssue(str(path), text)])


SecretText = Annotated[SecretStr, AfterValidator(_filled_secret), Field(min_length=1)]
"""A key, password or token. Secrets of other systems may be short, but never empty."""
SecretPath = Annotated[ExistingFile, check_usable(_find_emptiness)]
"""A file with a secret."""


def secret_of(setting: str, path: Path) -> str:
    """Return the one line of the file, as it is now. Raises SourceFault, which names the setting."""
    try:
        return read_secret(path)
    except ConfigurationError as error:
        raise SourceFault(f"{setting} {error.mistakes[0].path} {error.mistakes[0].text}") from None
