"""Reads a secret of a registry source or place of keys from its file."""

from pathlib import Path

from notifier.model.errors import ConfigurationError, SourceFault
from notifier.settings import secret_text


def read_secret(setting: str, path: Path) -> str:
    """Return the one line of the file, as it is now. Raises SourceFault, which names the setting."""
    try:
        return secret_text.read_secret(path)
    except ConfigurationError as error:
        raise SourceFault(f"{setting} {error.mistakes[0].path} {error.mistakes[0].text}") from None
