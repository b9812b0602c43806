"""Converts pydantic's errors in a configuration to messages for operators: the path of the key and the remedy.

Values are not shown, because they may be secrets, unless the message of the type's own check contains them.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from notifier.model.errors import InputIssue
from notifier.model.printable import stray_character
from notifier.model.redaction import redact
from notifier.model.validation import reword
from notifier.settings.file_paths import UNUSABLE_FILE
from notifier.settings.values import Section

Loc = tuple[int | str, ...]
ModelT = TypeVar("ModelT", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Validated(Generic[ModelT]):
    """The result of validation. `value`: None after a mistake, unless all concern missing or empty files.

    `invalid_members`: the members of the document with a mistake. `unusable_files`: the missing and empty files.
    """

    value: ModelT | None
    mistakes: Sequence[InputIssue]
    invalid_members: Collection[int | str]
    unusable_files: frozenset[Path]


def validate(model: type[ModelT], raw: object, context: dict[str, Any], prefix: str) -> Validated[ModelT]:
    """Validate a document, and return all errors. `prefix`: the text before each path."""
    mistakes: list[InputIssue] = []
    files: frozenset[Path] = frozenset()
    invalid_members: set[int | str] = set()
    value = None
    while value is None and not invalid_members:
        try:
            value = model.model_validate(raw, context={**context, "unusable": files} if files else context)
        except ValidationError as error:
            details = details_of(error)
            mistakes += explain(error, model, prefix)
            files |= {detail["ctx"]["path"] for detail in details if detail["type"] == UNUSABLE_FILE}
            if any(detail["type"] != UNUSABLE_FILE for detail in details):
                invalid_members = {detail["loc"][0] if detail["loc"] else "" for detail in details}
    return Validated(value=value, mistakes=mistakes, invalid_members=invalid_members, unusable_files=files)


def explain(error: ValidationError, model: type[BaseModel], prefix: str = "") -> list[InputIssue]:
    """Return all errors in pydantic's `error` as messages. `prefix`: the text before each path."""
    mistakes = []
    for detail in details_of(error):
        loc = tuple(part for part in detail["loc"] if part != "[key]")
        mistakes.append(InputIssue(path_of(loc, prefix), _format_error(detail, loc, model)))
    return mistakes


def details_of(error: ValidationError) -> list[ErrorDetails]:
    """Return the errors, except that a list is too short only because its invalid members do not count.

    The garbage collector may pause meanwhile, and freeze what is left then. So no cycle is left.
    """
    details = error.errors(include_url=False, include_input=False)
    for detail in details:
        if isinstance(cause := detail.get("ctx", {}).get("error"), Exception):
            cause.__traceback__ = None  # its frames refer to `details`: cyclic garbage, of 6 KB for a client

    def is_derived(detail: ErrorDetails) -> bool:
        loc = detail["loc"]
        return detail["type"] == "too_short" and any(
            other["loc"][: len(loc)] == loc != other["loc"] for other in details
        )

    return [detail for detail in details if not is_derived(detail)]


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
            return _format_unknown_key(model_at(model, loc[:-1]), loc)
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


def _format_unknown_key(owner: type[BaseModel] | None, loc: Loc) -> str:
    name = str(loc[-1])
    if owner is not None and issubclass(owner, Section) and name in owner.gone:
        return f"{owner.gone[name]}; remove it"
    if owner is not None and issubclass(owner, Section) and name in owner.of_features:
        return f"needs the feature {owner.of_features[name]}, which this notifier does not have"
    known = [field.alias or name for name, field in owner.model_fields.items()] if owner else []
    if owner is not None and issubclass(owner, Section) and loc[:2] == ("registry", "defaults"):
        known = [name for name in known if name not in owner.not_in_defaults]
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
