"""Reads C# by its grammar, where there is no .NET to run it: properties and their defaults, constants, texts."""

import functools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tree_sitter
import tree_sitter_c_sharp

_CONTENTS = ("string_literal_content", "escape_sequence")
_SPANS = {"FromSeconds": 1, "FromMinutes": 60, "FromDays": 86_400}


@functools.cache
def _parser() -> tree_sitter.Parser:
    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_c_sharp.language()))


def parsed(path: Path) -> tree_sitter.Node:
    """The whole file."""
    return _parser().parse(path.read_bytes()).root_node


def every(node: tree_sitter.Node, kind: str) -> Iterator[tree_sitter.Node]:
    """The nodes of a kind below this one."""
    for child in node.children:
        if child.type == kind:
            yield child
        yield from every(child, kind)


def text(node: tree_sitter.Node) -> str:
    """The node as it is written."""
    return (node.text or b"").decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Property:
    """A property of a class. `json`: its name there, if that is given. `default`: as a configuration has it."""

    name: str
    kind: str
    json: str | None
    default: str | None


def properties(path: Path, of: str) -> list[Property]:
    """The properties of a class or record of the file, in their order."""
    found = [node for kind in ("class_declaration", "record_declaration") for node in every(parsed(path), kind)]
    (body,) = [node for node in found if text(_field(node, "name")) == of]
    return [_property(node) for node in every(body, "property_declaration")]


def constants(path: Path) -> dict[str, str]:
    """The constants with a text or a number, by name."""
    found = {}
    for field in every(parsed(path), "field_declaration"):
        if "const" in [text(node) for node in field.children if node.type == "modifier"]:
            (declarator,) = every(field, "variable_declarator")
            found[text(_field(declarator, "name"))] = _value(declarator.children[-1])
    return found


def texts(path: Path) -> Iterator[str]:
    """Every text that the file holds, those with names in them too."""
    root = parsed(path)
    for node in every(root, "string_literal"):
        yield _value(node)
    for node in every(root, "raw_string_literal"):
        yield text(node).strip('"').strip()
    for node in every(root, "interpolated_string_expression"):
        yield text(node).lstrip("$").strip('"')


def _property(node: tree_sitter.Node) -> Property:
    names = [
        _value(literal)
        for attribute in every(node, "attribute")
        if text(attribute).startswith("JsonPropertyName(")
        for literal in every(attribute, "string_literal")
    ]
    value = node.child_by_field_name("value")
    return Property(
        name=text(_field(node, "name")),
        kind=text(_field(node, "type")),
        json=names[0] if names else None,
        default=None if value is None else _value(value),
    )


def _field(node: tree_sitter.Node, name: str) -> tree_sitter.Node:
    found = node.child_by_field_name(name)
    assert found is not None, text(node)
    return found


def _value(node: tree_sitter.Node) -> str:
    """A literal as a configuration has it. Anything else stays as it is written."""
    written = text(node)
    match node.type:
        case "string_literal":
            return "".join(text(part) for part in node.children if part.type in _CONTENTS)
        case "integer_literal":
            return _digits(written)
        case "binary_expression" if re.fullmatch(r"[\d_L* ]+", written):
            return str(math.prod(int(_digits(part)) for part in written.split("*")))
        case "invocation_expression" if span := re.fullmatch(r"TimeSpan\.(From\w+)\((\d+)\)", written):
            days, seconds = divmod(_SPANS[span[1]] * int(span[2]), 86_400)
            return (f"{days}." if days else "") + f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        case _:
            return written


def _digits(number: str) -> str:
    return number.strip().replace("_", "").rstrip("L")
