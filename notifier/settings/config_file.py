"""Reads the service's configuration: one YAML or JSON file, overridden by environment variables.

`NOTIFIER_QUEUE__URL` is `queue.url`. pydantic-settings is not used: it reads only `os.environ`, ignores misspelt
names, and stops at the first value that it cannot parse, whereas notifier reports all errors together.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_origin

import yaml
from pydantic import BaseModel, SecretStr, ValidationError

from notifier.model.errors import ConfigurationError, InputIssue
from notifier.settings.document_files import parse_yaml, read_document
from notifier.settings.input_issues import explain, submodel
from notifier.settings.queue_settings import QUEUE_FILE, SQLITE, QueueSettings
from notifier.settings.secret_text import read_secret
from notifier.settings.service_settings import Settings
from notifier.settings.usable_settings import UsableSettings, suggest_sections, usable_settings
from notifier.settings.values import FeatureSection, Listen, Section

PREFIX = "NOTIFIER_"
_TEXT_KINDS = (SecretStr, Listen)  # whose values may begin with [ or {, as [::1]:9464 does
_OTHER_VARIABLES = re.compile(r"NOTIFIER_(CONFIG|TEST_.*)")
# Kubernetes sets these variables for each service of the namespace, and a service may have the name "notifier".
_KUBERNETES_VARIABLES = re.compile(
    r"NOTIFIER_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT(_[0-9]+_(TCP|UDP|SCTP).*)?)", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class _Variable:
    """A setting that an environment variable can set."""

    path: tuple[str, ...]
    annotation: Any


def load_settings(path: Path | None, environ: Mapping[str, str], model: type[Settings] = Settings) -> Settings:
    """Return the settings of the file and the environment. Raises ConfigurationError with all errors."""
    usable = examine_settings(path, environ, set(), model)
    if usable.mistakes:
        raise ConfigurationError(usable.mistakes)
    return usable.settings


def examine_settings(
    path: Path | None, environ: Mapping[str, str], files: set[Path], model: type[Settings] = Settings
) -> UsableSettings:
    """Return the valid part of the configuration and all errors. Adds each configured file to `files`.

    `model`: the type of the settings, with the sections of features. Undeclared sections are not checked.
    """
    mistakes: list[InputIssue] = []
    invalid_sections: set[str] = set()
    document: dict[str, Any] = {}
    if path is not None:
        files.add(path.absolute())
        try:
            document = _mapping(path)
        except ConfigurationError as error:
            mistakes += error.mistakes
            invalid_sections |= model.model_fields.keys()  # the file may hold any of them
    mistakes += _apply_variables(document, environ, model, has_file=path is not None, invalid_sections=invalid_sections)
    _set_default_queue(document)
    base = Path() if path is None else path.absolute().parent
    usable = usable_settings(document, {"base": base, "files": files}, model)
    return replace(
        usable, mistakes=(*mistakes, *usable.mistakes), invalid_sections=usable.invalid_sections | invalid_sections
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialSettings:
    """Settings of which only some sections were read. The others have defaults.

    `issuers`: the names of all configured issuers. `document`: the configuration before validation.
    """

    settings: Settings
    issuers: frozenset[str]
    document: Mapping[str, Any] = field(repr=False)


def read_sections(
    path: Path | None, environ: Mapping[str, str], sections: Collection[str], model: type[Settings] = Settings
) -> PartialSettings:
    """Return the settings of these sections only. Raises ConfigurationError with the errors of these
    sections, and of all environment variables.

    It is for callers without access to the files of keys and clients, which other sections name.
    """
    base = Path() if path is None else path.absolute().parent
    document = {} if path is None else _mapping(path)
    mistakes = _apply_variables(document, environ, model, has_file=path is not None, invalid_sections=set())
    if "queue" in sections:
        _set_default_queue(document)
    issuers = document.get("issuers")
    left_out = model.model_fields.keys() - set(sections)
    try:
        part = {key: value for key, value in document.items() if key not in left_out}
        settings = model.model_validate(part, context={"base": base})
    except ValidationError as error:
        raise ConfigurationError([*mistakes, *explain(error, model)]) from None
    if mistakes:
        raise ConfigurationError(mistakes)
    names = frozenset(name for name in issuers if isinstance(name, str)) if isinstance(issuers, dict) else frozenset()
    return PartialSettings(settings=settings, issuers=names, document=document)


def read_credentials(queue: QueueSettings) -> tuple[str | None, str | None]:
    """Return the user name and password for the broker, None for each that is not set beside the URL.

    Raises ConfigurationError if the password file cannot be read.
    """
    if queue.password_file is not None:
        return queue.username, read_secret(queue.password_file)
    return queue.username, None if queue.password is None else queue.password.get_secret_value()


def _mapping(path: Path) -> dict[str, Any]:
    document = read_document(path)
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigurationError([InputIssue(path.name, "must be a mapping (key: value)")])
    return document


def _set_default_queue(document: dict[str, Any]) -> None:
    """If the document has no URL of a queue, set the URL of the embedded queue, a file beside the configuration."""
    queue = document.get("queue")
    if queue is None:
        queue = {}
    if isinstance(queue, dict) and queue.get("url") is None:
        document["queue"] = {**queue, "url": f"{SQLITE}{QUEUE_FILE}"}


# ── the environment ─────────────────────────────────────────────────────────────────────────────────────────────


def gone_settings(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Yield removed settings, such as `queue.prefetch.events`, each with its remedy.

    `*` stands for each entry of a list or mapping: `registry.sources.*.max_answer`.
    """
    if issubclass(model, Section):
        yield from ((".".join((*path, name)), why) for name, why in model.gone.items())
    for name, member in model.model_fields.items():
        if (inner := submodel(member.annotation)) is not None:
            yield from gone_settings(inner, (*path, name, *(() if _is_section(member.annotation) else "*")))


def variable_of(setting: str) -> str:
    """Return the environment variable of a setting outside lists and mappings."""
    return PREFIX + setting.replace(".", "__").upper()


def _sections(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield the nested sections by name, without lists and mappings."""
    for name, member in model.model_fields.items():
        inner = submodel(member.annotation)
        if inner is not None and _is_section(member.annotation):
            yield name, inner


def _is_section(annotation: object) -> bool:
    """Return False for a list or mapping of sections."""
    return get_origin(annotation) in (None, Union, UnionType)


def _variables(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, _Variable]]:
    for name, member in model.model_fields.items():
        here = (*path, name)
        yield PREFIX + "__".join(here).upper(), _Variable(here, member.annotation)
    for name, inner in _sections(model):
        yield from _variables(inner, (*path, name))


def _undeclared_prefixes(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the prefixes of variables of sections that no feature has declared."""
    for name, inner in _sections(model):
        if issubclass(inner, FeatureSection) and inner.model_config.get("extra") == "allow":
            yield f"{PREFIX}{'__'.join((*path, name))}__".upper()
        yield from _undeclared_prefixes(inner, (*path, name))


def _apply_variables(
    document: dict[str, Any],
    environ: Mapping[str, str],
    model: type[Settings],
    *,
    has_file: bool,
    invalid_sections: set[str],
) -> list[InputIssue]:
    """Write the environment variables into the document, and return their errors.

    `has_file`: the document comes from a file. Adds the section of each invalid variable to `invalid_sections`.
    """
    variables = dict(_variables(model))
    gone = {variable_of(setting): remedy for setting, remedy in gone_settings(model)}
    undeclared = tuple(_undeclared_prefixes(model))
    mistakes = []
    if not has_file and not environ.get("NOTIFIER_CONFIG", "-").strip():
        mistakes.append(InputIssue("NOTIFIER_CONFIG", "is empty; name the file, or unset it"))
    for name in sorted(environ):  # so that NOTIFIER_QUEUE comes before NOTIFIER_QUEUE__URL
        value = environ[name]
        is_unrelated = _OTHER_VARIABLES.fullmatch(name) or _KUBERNETES_VARIABLES.fullmatch(name)
        if not name.startswith(PREFIX) or is_unrelated:
            continue
        variable = variables.get(name)
        remedy = next((remedy for old, remedy in gone.items() if f"{name}__".startswith(f"{old}__")), None)
        if remedy is not None:
            mistakes.append(InputIssue(name, f"{remedy}; remove it"))
        elif variable is None and name.startswith(undeclared):
            continue
        elif variable is None:
            # Compared without the prefix, which makes any two names similar.
            matches = get_close_matches(name[len(PREFIX) :].upper(), [known[len(PREFIX) :] for known in variables], 1)
            hint = f"did you mean {PREFIX}{matches[0]}?" if matches else "`notifier schema config` lists them"
            mistakes.append(InputIssue(name, f"there is no such setting; {hint}"))
            invalid_sections |= suggest_sections(matches[0].partition("__")[0], model) if matches else set()
        elif not value.strip():
            mistakes.append(InputIssue(name, "is empty; give it a value, or unset it for the file or the default"))
            invalid_sections.add(variable.path[0])
        else:
            try:
                _set_value(document, variable.path, _parse_variable(value, variable, has_file=has_file))
            except (yaml.YAMLError, ValueError):
                mistakes.append(InputIssue(name, "is not valid JSON: a value that begins with [ or { must be"))
                invalid_sections.add(variable.path[0])
    return mistakes


def _parse_variable(text: str, variable: _Variable, *, has_file: bool) -> object:
    """Return the value of a variable. Text that begins with [ or { is parsed as YAML, unless the setting takes text.

    A relative path in a variable starts from the working directory. It is made absolute here, because paths in the
    document start from the folder of the configuration file.
    """
    annotation = str(variable.annotation)
    if text[0] in "[{" and not any(kind.__name__ in annotation for kind in _TEXT_KINDS):
        return parse_yaml(text)
    if has_file and Path.__name__ in annotation:
        return _to_absolute(text)
    if has_file and text.startswith("sqlite:"):
        return f"sqlite:{_to_absolute(text.removeprefix('sqlite:'))}"
    return text


def _to_absolute(path: str) -> str:
    """Return the absolute path. A path that begins with `~` is resolved later, by its own check."""
    return path if path.startswith("~") else str(Path(path).absolute())


def _set_value(document: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    """Set the value at its path. A secret given directly replaces one given as a file, and vice versa."""
    *folders, name = path
    for folder in folders:
        inner = document.get(folder)
        document[folder] = dict(inner) if isinstance(inner, dict) else {}
        document = document[folder]
    document.pop(name.removesuffix("_file") if name.endswith("_file") else f"{name}_file", None)
    document[name] = value
