"""Reads the secrets by which senders of sources prove who they are."""

from collections.abc import Mapping
from pathlib import Path

from notifier.features.sources.source_settings import SourceSettings
from notifier.model.errors import ConfigurationError, Mistake
from notifier.settings.secret_text import read_text

_SCHEMES = frozenset((b"bearer", b"basic", b"token", b"apikey"))  # all that an empty variable leaves of a header
MOST = 2
"""Values that a file may have: the one in use, and another while it is being replaced."""


def secret_file(source: SourceSettings) -> tuple[str, Path] | None:
    """Return the source's file of secrets and the setting that names it. None if its proof is no secret."""
    http = source.http
    if http is not None and http.value_file is not None:
        return "value_file", http.value_file
    if http is not None and http.hmac is not None:
        return "hmac.secret_file", http.hmac.secret_file
    return None


def read_source_secrets(sources: Mapping[str, SourceSettings]) -> tuple[dict[str, tuple[bytes, ...]], list[Mistake]]:
    """Return the secrets of each source that has any, by name, and every mistake. White space around is ignored."""
    secrets: dict[str, tuple[bytes, ...]] = {}
    mistakes: list[Mistake] = []
    for name, source in sources.items():
        if (named := secret_file(source)) is None:
            continue
        setting, path = f"sources.{name}.http.{named[0]}", named[1]
        try:
            text = read_text(path)
        except ConfigurationError as error:
            mistakes += [Mistake(setting, f"{path} {mistake.text}") for mistake in error.mistakes]
            continue
        values = tuple(line.strip().encode() for line in text.splitlines() if line.strip())
        if not values:
            mistakes.append(Mistake(setting, f"{path} is empty; write the secret into it"))
        elif not _SCHEMES.isdisjoint(value.lower() for value in values):
            mistakes.append(Mistake(setting, f"{path} has a scheme without a secret behind it, such as Bearer alone"))
        elif len(values) > MOST:
            text = f"{path} has {len(values)} lines; write the secret, and a second one while you replace it"
            mistakes.append(Mistake(setting, text))
        else:
            secrets[name] = values
    return secrets, mistakes
