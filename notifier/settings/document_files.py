"""Reads a YAML or JSON file into plain values. Errors name line and column; a duplicate key is an error.

Values are built directly from libyaml's events. PyYAML's loader takes three times as long without releasing the GIL:
a reload of 100,000 clients would block the event loop of a worker for seconds. A scalar is resolved, by PyYAML's rules,
only if its first character allows a type other than string. JSON is read about 14 times as fast: large lists need it.

An alias costs nothing here, since it is the object of its anchor, but later steps visit and copy this object at each
place. Ten lines of ten aliases each can stand for 10^10 values. So the values that aliases stand for are counted.
"""

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NoReturn, cast

import yaml

from notifier.model.errors import ConfigurationError, InputIssue
from notifier.model.redaction import redact
from notifier.model.shared_resources import shared_cache
from notifier.settings.secret_text import read_text

_Loader: type[yaml.SafeLoader] | type[yaml.CSafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STR = "tag:yaml.org,2002:str"
MAX_ALIASED_VALUES = 1_000_000  # values that the aliases of a document stand for: ten for each of 100,000 clients
MAX_ALIASED_NESTING = 100  # nested lists and mappings in the value of an alias
_MAX_CACHED_CHARS = 100  # characters of a scalar that is not a string. Base-60 numbers (`1:30`) take quadratic time


def read_document(path: Path) -> object:
    """Return the YAML or JSON document in the file. Raises ConfigurationError with the line and column of an error."""
    text = read_text(path)
    try:
        if path.suffix == ".json":
            return json.loads(text, object_pairs_hook=_refuse_duplicates)
        return parse_yaml(text)
    except json.JSONDecodeError as error:
        raise _document_error(path.name, f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        context = f" ({error.context})" if error.context else ""
        raise _document_error(path.name, f"{place}{error.problem}{context}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise _document_error(path.name, str(error).replace("\n", " ")) from None
    except RecursionError:
        raise _document_error(path.name, "is nested too deeply") from None


def parse_yaml(text: str) -> object:
    """Return the value of one YAML or JSON document. Raises yaml.YAMLError."""
    try:
        return _Builder(text).document()
    except RecursionError:
        raise yaml.YAMLError("is nested too deeply") from None


def _document_error(path: str, text: str) -> ConfigurationError:
    return ConfigurationError([InputIssue(path, redact(text))])  # it may quote a misplaced URL with a password


def _refuse_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        keys = [key for key, _ in pairs]
        doubled = sorted({key for key in keys if keys.count(key) > 1})
        raise ValueError(f"the key {doubled[0]!r} is there twice")
    return members


def _resolve(text: str) -> object:
    """Return the value of a plain scalar. Long scalars are not cached."""
    return _resolve_short(text) if len(text) <= _MAX_CACHED_CHARS else _resolve_uncached(text)


def _resolve_uncached(text: str) -> object:
    for tag, pattern in yaml.SafeLoader.yaml_implicit_resolvers.get(text[:1], ()):
        if pattern.match(text):
            return _construct(text, tag)
    return text


_resolve_short = shared_cache(4096)(_resolve_uncached)  # values such as `true` and `8` recur in every client


def _construct(text: str, tag: str) -> object:
    if tag in (_STR, "tag:yaml.org,2002:merge", "tag:yaml.org,2002:value"):
        return text
    if len(text) > _MAX_CACHED_CHARS:
        raise ValueError("too long")
    return yaml.constructor.SafeConstructor().construct_object(yaml.ScalarNode(tag, text), deep=True)


class _Anchor:
    """A value that aliases may stand for. `count`: its values, including nested ones, counted at its first alias."""

    def __init__(self, value: object) -> None:
        self.value = value

    @cached_property
    def count(self) -> int:
        count, level, depth = 0, [self.value], 0
        while level and count <= MAX_ALIASED_VALUES:
            count, depth = count + len(level), depth + 1
            if depth > MAX_ALIASED_NESTING:
                raise RecursionError
            level = [
                inner
                for value in level
                if isinstance(value, dict | list)
                for inner in (value.values() if isinstance(value, dict) else value)
            ]
        return count


class _Builder:
    """Builds the values of a document from its events."""

    def __init__(self, text: str) -> None:
        self._events = _Loader(text)
        self._next = cast("Callable[[], yaml.Event]", self._events.get_event)
        # A scalar that begins with another character is always a string. An empty scalar is null.
        self._ambiguous = frozenset(cast("dict[str, object]", yaml.SafeLoader.yaml_implicit_resolvers))
        self._anchors: dict[str, _Anchor] = {}
        self._aliased_values = 0
        self._keys: dict[str, str] = {}  # equal keys share one string, since they recur in every client

    def document(self) -> object:
        """Return the only document of the text, or None."""
        try:
            self._next()  # the start of the stream
            start = self._next()
            if isinstance(start, yaml.StreamEndEvent):
                return None
            value = self._value(self._next())
            self._next()  # the end of the document
            end = self._next()
            if not isinstance(end, yaml.StreamEndEvent):
                _fail(end, "a second document begins here; one is expected")
            return value
        finally:
            self._events.dispose()

    def _value(self, event: yaml.Event) -> object:
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(event)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(event)
        assert isinstance(event, yaml.AliasEvent)
        anchor = self._anchors.get(event.anchor or "")
        if anchor is None:
            _fail(event, f"nothing before this is marked &{event.anchor}")
        self._aliased_values += anchor.count
        if self._aliased_values > MAX_ALIASED_VALUES:
            _fail(event, f"aliases stand for more than {MAX_ALIASED_VALUES:,} values; write them without aliases")
        return anchor.value

    def _scalar(self, event: yaml.ScalarEvent) -> object:
        text = event.value
        plain = event.implicit[0]
        tag = event.tag
        value: object = text
        # Without a tag a plain scalar has the type that its text resolves to. The tag "!" marks a string.
        if (tag is None and plain and text[:1] in self._ambiguous) or (tag is not None and tag != "!"):
            try:
                value = _resolve(text) if tag is None else _construct(text, tag)
            except (yaml.YAMLError, ValueError, LookupError, AttributeError):  # `!!bool x`, `!!timestamp x`
                what = "date, time or number it looks like" if tag is None else f"{tag} it is marked as"
                _fail(event, f"this cannot be read as the {what}; if it is a text, put it in quotes")
        if event.anchor is not None:
            self._anchors[event.anchor] = _Anchor(value)
        return value

    def _sequence(self, event: yaml.SequenceStartEvent) -> list[object]:
        values: list[object] = []
        while not isinstance(item := self._next(), yaml.SequenceEndEvent):
            values.append(self._value(item))
        if event.anchor is not None:
            self._anchors[event.anchor] = _Anchor(values)
        return values

    def _mapping(self, event: yaml.MappingStartEvent) -> dict[object, object]:
        members: dict[object, object] = {}
        merged: list[object] = []
        while not isinstance(item := self._next(), yaml.MappingEndEvent):
            key = self._scalar(item) if type(item) is yaml.ScalarEvent else self._value(item)
            if key == "<<" and isinstance(item, yaml.ScalarEvent) and item.implicit[0]:
                merged.append(self._merge(item, self._value(self._next())))
                continue
            if isinstance(key, list | dict):
                _fail(item, "a list or mapping cannot be a key")
            if key in members:
                _fail(item, f"the key {key!r} is there twice")
            if isinstance(key, str):
                key = self._keys.setdefault(key, key)
            following = self._next()
            members[key] = self._scalar(following) if type(following) is yaml.ScalarEvent else self._value(following)
        for source in merged:
            assert isinstance(source, dict)
            members = {**source, **members}
        if event.anchor is not None:
            self._anchors[event.anchor] = _Anchor(members)
        return members

    def _merge(self, event: yaml.Event, value: object) -> dict[object, object]:
        """Return the members to merge at `<<`: of a mapping, or of a list of mappings, where earlier ones win."""
        sources: Sequence[object] = value if isinstance(value, list) else [value]
        merged: dict[object, object] = {}
        for source in sources:
            if not isinstance(source, dict):
                _fail(event, "<< must be followed by a mapping, or a list of mappings")
            merged = {**source, **merged}
        return merged


def _fail(event: yaml.Event, problem: str) -> NoReturn:
    raise yaml.MarkedYAMLError(problem=problem, problem_mark=cast("yaml.Mark", event.start_mark))
