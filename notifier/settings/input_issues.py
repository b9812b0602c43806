"""Converts pydantic's errors in a configuration to messages for operators: the path of the key and the remedy.

Values are not shown, because they may be secrets, unless the message of the type's own check contains them.
"""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from notifier.model.errors import InputIssue
from notifier.model.printable import stray_character
from notifier.model.redaction import redact
from notifier.model.validation import reword
from notifier.settings.values import Section

Loc = tuple[int | str, ...]


def explain(error: ValidationError, model: type[BaseModel], prefix: str = "") -> list[InputIssue]:
    """Return all errors of a document that does not conform to `model`. `prefix` comes before each path."""
    mistakes = []
    details = error.errors(include_url=False, include_input=False)
    misplaced = _find_misplaced(details, model)
    mistakes += [InputIssue(path_of(loc, prefix), _format_misplaced(loc, names)) for loc, names in misplaced.items()]
    for detail in details:
        if any(detail["loc"][: len(at)] == at and detail["loc"][len(at)] in names for at, names in misplaced.items()):
            continue
        loc = tuple(part for part in detail["loc"] if part != "[key]")
        if detail["type"] == "too_short" and any(other["loc"][: len(loc)] == loc != other["loc"] for other in details):
            continue  # its only missing members are wrong ones, which are reported themselves
        mistakes.append(InputIssue(path_of(loc, prefix), _format_error(detail, loc, model)))
    return mistakes


def _find_misplaced(details: Sequence[ErrorDetails], model: type[BaseModel]) -> dict[Loc, list[str]]:
    """Find members of an entry in place of the entry's name, such as `defaults: {tls: …}`, by path of the mapping."""
    misplaced_at: dict[Loc, list[str]] = {}
    for detail in details:
        loc = detail["loc"]
        at = _mapping_above(model, loc)
        if at and (loc[at:][1:] == ("[key]",) or (len(loc) == at + 1 and detail["type"] == "model_type")):
            names = misplaced_at.setdefault(loc[:at], [])
            names += [] if loc[at] in names else [str(loc[at])]
    return misplaced_at


def _mapping_above(model: type[BaseModel], loc: Loc) -> int:
    """Return the path length of a mapping with an entry named like a member of the entry; 0 if there is none."""
    nested: type[BaseModel] | None = model
    for depth, part in enumerate(loc[:-1], 1):
        if isinstance(part, int):
            continue
        if nested is None or part not in nested.model_fields:
            return 0
        annotation = nested.model_fields[part].annotation
        nested = submodel(annotation)
        if get_origin(annotation) is dict:
            return depth if nested is not None and loc[depth] in nested.model_fields else 0
    return 0


def _format_misplaced(loc: Loc, names: Sequence[str]) -> str:
    entry = '"https://id.example.com"' if loc[-1] in ("issuers", "defaults") else "NAME"
    written = ", ".join(f"{name}: …" for name in names)
    return f"needs a name for each entry, and {' and '.join(names)} below it: {loc[-1]}: {{{entry}: {{{written}}}}}"


def path_of(loc: Sequence[int | str], prefix: str = "") -> str:
    """Return the path as an operator writes it: `delivery.retry.base`, `issuers["https://id.example.com"].keys[0].file`."""
    path = prefix
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        elif re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", part):
            path += f".{part}" if path else part
        else:
            path += f'["{redact(part)}"]'  # a URL in a wrong place
    return path


def submodel(annotation: object) -> type[BaseModel] | None:
    """Return the model within an annotation such as `Model | None`, `dict[str, Model]` or `tuple[Model, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for arg in get_args(annotation) if (model := submodel(arg)) is not None), None)


def _format_error(detail: ErrorDetails, loc: Loc, model: type[BaseModel]) -> str:
    context: Mapping[str, Any] = detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            return _format_unknown_key(model_at(model, loc[:-1]), str(loc[-1]))
        case "missing":
            return "is required"
        case "value_error":
            return str(context["error"])
        case "literal_error" | "enum":
            return f"must be {context['expected']}"
        case "model_type" | "dict_type" | "model_attributes_type":
            return "must be a mapping (key: value)"
        case "tuple_type" | "list_type" | "frozen_set_type":
            return "must be a list"
        case "string_type" | "path_type":
            return "must be a text; put it in quotes"
        case "too_short" if context.get("min_length") == 1:
            return "must name at least one"
        case "string_too_short" if context.get("min_length") == 1:
            return "must not be empty"
        case "invalid_key":
            return "keys must be texts; put this one in quotes"
        case "string_pattern_mismatch":
            return f"must match {context['pattern']}"
        case _:
            return reword(detail)


def _format_unknown_key(owner: type[BaseModel] | None, name: str) -> str:
    if owner is not None and issubclass(owner, Section) and name in owner.gone:
        return f"{owner.gone[name]}; remove it"
    if owner is not None and issubclass(owner, Section) and name in owner.of_features:
        return f"needs the feature {owner.of_features[name]}, which this notifier does not have"
    known = tuple(field.alias or name for name, field in owner.model_fields.items()) if owner else ()
    if (stray := stray_character(name)) is not None:
        return f"there is no such key: it {stray}"
    matches = get_close_matches(name, known, 1)
    hint = f"did you mean {matches[0]}?" if matches else f"use one of {', '.join(known)}"
    return f"there is no such key; {hint}"


def model_at(model: type[BaseModel], loc: Sequence[int | str]) -> type[BaseModel] | None:
    """Return the nested model at this path, in which entries of lists and mappings may be omitted."""
    nested: type[BaseModel] | None = model
    for part in loc:
        if nested is not None and isinstance(part, str) and part in nested.model_fields:
            nested = submodel(nested.model_fields[part].annotation)
    return nested
