"""Reads the service's configuration: one YAML or JSON file, with environment variables laid over it.

`NOTIFIER_QUEUE__URL` is `queue.url`. pydantic-settings is not used: it reads `os.environ` alone, passes over
misspelt names, and stops at the first value that cannot be parsed, where an operator wants every mistake at once.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, SecretStr, ValidationError

from notifier.adapters.configuration.config_parts import SECTIONS, Parts, meant, right_parts
from notifier.adapters.configuration.document_files import parse_yaml, read_document, read_text
from notifier.adapters.configuration.mistakes import explain, fields_of
from notifier.domain.errors import ConfigurationError, Mistake
from notifier.settings.service_settings import QueueSettings, Settings

PREFIX = "NOTIFIER_"
_OURS_OTHERWISE = re.compile(r"NOTIFIER_(CONFIG|TEST_.*)")
# Kubernetes sets such variables for each service of the namespace, and one of them may well be called "notifier".
_OF_KUBERNETES = re.compile(r"NOTIFIER_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT(_[0-9]+_(TCP|UDP|SCTP).*)?)")


@dataclass(frozen=True, slots=True)
class _Variable:
    """One setting as an environment variable can name it."""

    path: tuple[str, ...]
    annotation: Any


def load_settings(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """The configuration. Without `path`: the defaults and `environ`. Raises ConfigurationError with every mistake."""
    parts = examine_settings(path, environ, set())
    if parts.mistakes:
        raise ConfigurationError(parts.mistakes)
    return parts.settings


def examine_settings(path: Path | None, environ: Mapping[str, str], files: set[Path]) -> Parts:
    """What of the configuration is right, and every mistake. `files`, every one that it names, are put there."""
    mistakes: list[Mistake] = []
    unsure: set[str] = set()
    document: dict[str, Any] = {}
    if path is not None:
        files.add(path.absolute())
        try:
            document = _mapping(path)
        except ConfigurationError as error:
            mistakes += error.mistakes
            unsure |= SECTIONS  # any of them may be in it
    mistakes += _overlay(document, environ, relative=path is not None, unsure=unsure)
    base = Path() if path is None else path.absolute().parent
    parts = right_parts(document, {"base": base, "files": files})
    return replace(parts, mistakes=(*mistakes, *parts.mistakes), unsure=parts.unsure | unsure)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPart:
    """Some sections of the settings, the others as by default; `issuers` names those of the file."""

    settings: Settings
    issuers: frozenset[str]


def read_part(path: Path | None, environ: Mapping[str, str], sections: Collection[str]) -> ReadPart:
    """These sections alone, for one who may not read the keys and the clients that the others name.

    Raises ConfigurationError with every mistake in them.
    """
    base = Path() if path is None else path.absolute().parent
    document = {} if path is None else _mapping(path)
    mistakes = _overlay(document, environ, relative=path is not None, unsure=set())
    issuers = document.get("issuers")
    left_out = Settings.model_fields.keys() - set(sections)
    try:
        part = {key: value for key, value in document.items() if key not in left_out}
        settings = Settings.model_validate(part, context={"base": base})
    except ValidationError as error:
        raise ConfigurationError([*mistakes, *explain(error, Settings)]) from None
    if mistakes:
        raise ConfigurationError(mistakes)
    names = frozenset(name for name in issuers if isinstance(name, str)) if isinstance(issuers, dict) else frozenset()
    return ReadPart(settings=settings, issuers=names)


def missing_to_run(settings: Settings) -> list[Mistake]:
    """What the defaults cannot give and a worker needs."""
    if settings.issuers:
        return []
    text = 'at least one is needed, such as issuers: {"https://id.example.com": {keys: [{file: key.pem}]}}'
    return [Mistake("issuers", text)]


def read_credentials(queue: QueueSettings) -> tuple[str | None, str | None]:
    """User name and password as they stand now, None where the URL has them. Raises ConfigurationError."""
    if queue.password_file is not None:
        return queue.username, read_text(queue.password_file).rstrip("\r\n")
    return queue.username, None if queue.password is None else queue.password.get_secret_value()


def read_subject_key(settings: Settings) -> str | None:
    """The key that hashes `sub` and `sid` for logs; None where none is set. Raises ConfigurationError."""
    if settings.log.subject_key_file is not None:
        return read_text(settings.log.subject_key_file).strip()
    return None if settings.log.subject_key is None else settings.log.subject_key.get_secret_value()


def _mapping(path: Path) -> dict[str, Any]:
    document = read_document(path)
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigurationError([Mistake(path.name, "must be a mapping (key: value)")])
    return document


# ── the environment ─────────────────────────────────────────────────────────────────────────────────────────────


def _variables(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, _Variable]]:
    for name, annotation, inner in fields_of(model):
        here = (*path, name)
        yield PREFIX + "__".join(here).upper(), _Variable(here, annotation)
        if inner is not None:
            yield from _variables(inner, here)


def _overlay(
    document: dict[str, Any], environ: Mapping[str, str], *, relative: bool, unsure: set[str]
) -> list[Mistake]:
    """Lay the variables over the document; `relative` where the document's paths are not those of the process.

    A section that a wrong variable means is put into `unsure`.
    """
    variables = dict(_variables(Settings))
    mistakes = []
    for name in sorted(environ):  # so that NOTIFIER_QUEUE comes before NOTIFIER_QUEUE__URL
        value = environ[name]
        if not name.startswith(PREFIX) or _OURS_OTHERWISE.fullmatch(name) or _OF_KUBERNETES.fullmatch(name):
            continue
        variable = variables.get(name)
        if variable is None:
            # Without the prefix, which makes any two names alike.
            near = get_close_matches(name[len(PREFIX) :].upper(), [known[len(PREFIX) :] for known in variables], 1)
            hint = f"did you mean {PREFIX}{near[0]}?" if near else "`notifier schema config` lists them"
            mistakes.append(Mistake(name, f"there is no such setting; {hint}"))
            unsure |= meant(near[0].partition("__")[0]) if near else set()
        elif value:
            try:
                _set(document, variable.path, _value(value, variable, relative=relative))
            except (yaml.YAMLError, ValueError):
                mistakes.append(Mistake(name, "is neither a plain value nor JSON"))
                unsure.add(variable.path[0])
    return mistakes


def _value(text: str, variable: _Variable, *, relative: bool) -> object:
    """What a variable means: JSON where it looks like that, and a path that is relative to where the process runs."""
    annotation = str(variable.annotation)
    if text[0] in "[{" and SecretStr.__name__ not in annotation:
        return parse_yaml(text)
    if relative and Path.__name__ in annotation:
        return _from_here(text)
    if relative and text.startswith("sqlite:"):
        return f"sqlite:{_from_here(text.removeprefix('sqlite:'))}"
    return text


def _from_here(path: str) -> str:
    """The path in full. One that begins at a home is left to its own check, which says what is wrong with it."""
    return path if path.startswith("~") else str(Path(path).absolute())


def _set(document: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    """Put the value at its place. A secret given outright outranks one given as a file below it, and the reverse."""
    *folders, name = path
    for folder in folders:
        inner = document.get(folder)
        document[folder] = dict(inner) if isinstance(inner, dict) else {}
        document = document[folder]
    document.pop(name.removesuffix("_file") if name.endswith("_file") else f"{name}_file", None)
    document[name] = value
