"""Finds the mistakes of the files that no other reading of the configuration examines: secrets and TLS files.

A section may name several files. All mistakes of all files are listed in one run: a missing or empty file is reported
by its setting, and the others of its section are examined all the same.
"""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel

from notifier.configuration.clients.layer import Layer
from notifier.configuration.library_examinations import examinations
from notifier.model.client import TlsFiles
from notifier.model.errors import ConfigurationError, InputIssue
from notifier.model.registry import Registry
from notifier.network.http.pem_files import find_client_issues, find_listener_issues
from notifier.settings.config_file import read_credentials
from notifier.settings.input_issues import Loc, path_of
from notifier.settings.policies import TlsSettings
from notifier.settings.service_settings import Settings
from notifier.settings.subject_key import read_subject_key


def leave_out_files(mistakes: Sequence[InputIssue], files: Collection[Path]) -> Iterator[InputIssue]:
    """Yield the mistakes, except those about these files, which were reported before."""
    names = {name for file in files for name in (str(file), file.name)}
    paths = {*map(str, files)}
    for mistake in mistakes:
        is_unread = mistake.path in names and mistake.text.startswith(("cannot be read", "is empty"))
        if not is_unread and paths.isdisjoint(_parts_of(mistake.text)):
            yield mistake


def _parts_of(text: str) -> Iterator[str]:
    """Yield each part of the text that may be the name of a file: from a word to the end of any later word.

    A search for each of thousands of files in each text took 8 s.
    """
    starts = [0, *(match.end() for match in re.finditer("[ '\"(=:,;]", text))]
    ends = [match.start() for match in re.finditer("[ :,;]|$", text)]
    yield from (text[start:end] for start in starts for end in ends if start < end)


def find_start_errors(
    settings: Settings, _registry: Registry, _layers: Sequence[Layer], reported: Collection[Path] = ()
) -> list[InputIssue]:
    """Return the errors of the libraries, and of the secrets and TLS files that a worker reads only at start.

    Mistakes of `reported` files are left out. The TLS files of a client are not checked, because an error there affects
    only the client's deliveries.
    """
    mistakes: list[InputIssue] = []
    checks: list[Callable[[], object]] = [*examinations(settings)]
    checks += [lambda: read_credentials(settings.queue), lambda: read_subject_key(settings)]
    for check in checks:
        try:
            check()
        except ConfigurationError as error:
            mistakes += error.mistakes
    issues = {}
    if settings.api is not None and settings.api.tls is not None:
        issues["api.tls"] = find_listener_issues(settings.api.tls, reported)
    if settings.web is not None and settings.web.tls is not None:
        issues["web.tls"] = find_listener_issues(settings.web.tls, reported)
    if settings.queue.tls is not None:
        issues["queue.tls"] = find_client_issues(settings.queue.tls.files(), reported)
    return mistakes + [InputIssue(path, "; ".join(texts)) for path, texts in issues.items() if texts]


def find_tls_mistakes(settings: Settings, reported: Collection[Path]) -> list[InputIssue]:
    """Return the errors of the TLS files of servers that notifier calls, except the broker and the clients.

    A worker starts with them: they affect only the requests to that server.
    """
    return [
        InputIssue(path, f"{'; '.join(texts)}; until it is corrected, requests fail")
        for path, files in _find_tls_sections(settings, ())
        if path != "queue.tls" and (texts := find_client_issues(files, reported))
    ]


def _find_tls_sections(value: object, place: Loc) -> Iterator[tuple[str, TlsFiles]]:
    """Yield the path and the files of each section about the TLS of outgoing connections."""
    if isinstance(value, TlsSettings):
        yield path_of(place), value.files()
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _find_tls_sections(getattr(value, name), (*place, name))
    elif isinstance(value, dict):
        for name, member in value.items():
            yield from _find_tls_sections(member, (*place, str(name)))
    elif isinstance(value, tuple):
        for nth, member in enumerate(value):
            yield from _find_tls_sections(member, (*place, nth))
