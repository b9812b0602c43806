"""Reads a secret from its file, each time it is needed: an operator may have changed it."""

from pathlib import Path

from notifier.model.errors import SourceFault


def read_secret(setting: str, path: Path) -> str:
    """Return the one line of the file. Raises SourceFault, which names the setting."""
    try:
        secret = path.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceFault(f"{setting} {path} cannot be read as UTF-8 text ({type(error).__name__})") from None
    if not secret or not secret.isprintable():
        raise SourceFault(f"{setting} {path} must hold one line of text")
    return secret
