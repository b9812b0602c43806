"""Generates the JSON Schema of the configuration from its types."""

import ast
import inspect
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from notifier.model.durations import format_duration
from notifier.settings.api_tokens import TokenEntry
from notifier.settings.service_settings import Settings
from notifier.settings.values import Listen, Section

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def config_schema(model: type[Settings] = Settings) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the configuration file; `$defs/clients` and `$defs/tokens` of the others."""
    models: list[type[BaseModel]] = [model, model.client_metadata, TokenEntry]
    _, schema = models_json_schema([(model, "validation") for model in models], ref_template="#/$defs/{model}")
    definitions: dict[str, Any] = schema["$defs"]
    sections: list[type[BaseModel]] = [model.client_metadata, *_subclasses_of(Section)]
    for section in sections:
        if section.__name__ in definitions:
            _describe(section, definitions[section.__name__]["properties"])
    for definition in definitions.values():
        for member in definition.get("properties", {}).values():
            _as_written(member)
    for name, item, text in (
        ("clients", "ClientMetadata", "The clients file (registry.file)."),
        ("tokens", "TokenEntry", "The file of api.tokens_file."),
    ):
        definitions[name] = {"type": "array", "items": {"$ref": f"#/$defs/{item}"}, "description": text}
    settings = definitions.pop("Settings")
    return {"$schema": _DIALECT, **settings, "title": "notifier's configuration", "$defs": definitions}


def _subclasses_of(section: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for subclass in section.__subclasses__():
        yield subclass
        yield from _subclasses_of(subclass)


def _describe(section: type[BaseModel], properties: dict[str, Any]) -> None:
    """Add the string below each member in the code as its description, unless its field has one."""
    for name, description in _texts(section):
        alias = section.model_fields[name].alias or name
        if alias in properties:  # another class of this name has the members of a feature
            properties[alias] = dict(sorted({"description": description, **properties[alias]}.items()))


def _texts(section: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Yield the name of each member of the section and its base classes, and the string below the member."""
    for base in section.__mro__:
        if issubclass(base, BaseModel) and base not in (BaseModel, Section):
            [code] = ast.parse(inspect.getsource(base)).body
            assert isinstance(code, ast.ClassDef)
            for member, text in pairwise(code.body):
                match member, text:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(told))):
                        yield name, " ".join(told.split())


def _as_written(member: dict[str, Any]) -> None:
    """Format a member as operators write it: the default with a unit, no title that repeats the name.

    A mapping with a pattern for names allows no other names.
    """
    member.pop("title", None)
    for mapping in (member, *member.get("anyOf", ())):
        if "patternProperties" in mapping:
            mapping["additionalProperties"] = False
    default = member.get("default")
    if default is None:
        member.pop("default", None)
    elif "pattern" in member and isinstance(default, float):
        member["default"] = format_duration(default)
    elif isinstance(default, dict):
        del member["default"]  # a section: its members show their own
        if default.keys() == {"host", "port"}:
            member["default"] = str(Listen(**default))
