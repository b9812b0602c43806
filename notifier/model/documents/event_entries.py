"""Separates the valid entries of an event's `clients` from the invalid ones, which do not affect the valid ones.

An event may have 65,000 invalid entries. So one call of the validator checks all entries without explaining mistakes
(0.1 to 0.3 µs each; an error would take 5 µs), and only the first 20 mistakes are explained.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, compress, islice
from typing import Annotated, Any, TypeAlias

from pydantic import Discriminator, GetCoreSchemaHandler, Tag, TypeAdapter, ValidationError
from pydantic_core import CoreSchema
from pydantic_core.core_schema import with_default_schema

from notifier.model.documents.event_members import EntryDocument, Text
from notifier.model.documents.misspelt_members import ENTRY_MEMBERS, suggest_members
from notifier.model.errors import InputIssue
from notifier.model.record import record
from notifier.model.session_ended import ClientEntry
from notifier.model.validation import kind_of, to_issues

MAX_ISSUES = 20  # the largest number of reported mistakes; the others are counted
MAX_POSITIONS_BYTES = 1024
MAX_UNSEARCHED_ENTRIES = 100  # entries; a longer list is searched for duplicates

GoodEntries: TypeAlias = tuple[str | ClientEntry, ...]
EntryList: TypeAlias = Sequence[str | EntryDocument | None]


@record
class WrongEntries:
    """The invalid entries of an event: the first 20 mistakes. `more` counts the other mistakes and entries.

    `which`: the positions of the entries in `clients`, such as `3-7,12`; empty if that would exceed 1 KiB.
    """

    mistakes: tuple[InputIssue, ...]
    more: int
    which: str


class _NoneOnError:
    """Validates a wrong value as None."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return with_default_schema(handler(source), default=None, on_error="default")


def _find_tag(value: object) -> str | None:
    return "name" if type(value) is str else "object" if type(value) is dict else None


_Entry = Annotated[Annotated[Text, Tag("name")] | Annotated[EntryDocument, Tag("object")], Discriminator(_find_tag)]
_TEXT = TypeAdapter[str](Text)
_ENTRY = TypeAdapter(EntryDocument)
_EACH: TypeAdapter[Any] = TypeAdapter(list[Annotated[_Entry, _NoneOnError()]])


def read_entries(raw: list[object]) -> EntryList:
    """Return the parsed entries, with None in place of each invalid entry."""
    # The validator takes long for entries of other types, so they are filtered out before.
    candidates = [entry != "" if type(entry) is str else type(entry) is dict and "client_id" in entry for entry in raw]
    parsed = iter(_EACH.validate_python(list(compress(raw, candidates))))
    return [next(parsed) if is_candidate else None for is_candidate in candidates]


def separate_entries(
    listed: EntryList, raw: object, path: str, *, event_has_subject: bool
) -> tuple[GoodEntries, WrongEntries | None]:
    """Return the valid entries, and a description of the invalid ones; None if all are valid.

    More than 100 valid entries are returned without duplicates. `listed`: the entries as parsed from `raw`.
    `event_has_subject`: the event has `sub` or `sid`. `path`: the prefix for the paths of mistakes.
    """
    good: list[str | ClientEntry] = []
    wrong: list[range] = []  # runs of wrong entries between valid ones
    begin = end = -1
    for index, entry in enumerate(listed):
        if event_has_subject and type(entry) is str and entry != "*":  # the usual case
            good.append(entry)
        elif event_has_subject and type(entry) is dict and entry["client_id"] != "*":
            good.append(entry["client_id"] if len(entry) == 1 else _to_client_entry(entry))
        elif entry is None or _find_mistake(entry, event_has_subject=event_has_subject) is not None:
            if index != end:
                wrong.append(range(begin, end))
                begin = index
            end = index + 1
        else:
            good.append(_to_entry(entry))
    clients = tuple(good) if len(good) <= MAX_UNSEARCHED_ENTRIES else tuple(dict.fromkeys(good))
    if end < 0:
        return clients, None
    assert isinstance(raw, list), "there are entries"
    wrong = [*wrong[1:], range(begin, end)]  # without the empty range before the first run
    mistakes: list[InputIssue] = []
    count = 0
    for index in islice(chain.from_iterable(wrong), MAX_ISSUES):
        if len(mistakes) >= MAX_ISSUES:
            break
        mistakes += _explain_entry(raw[index], f"{path}[{index}]", event_has_subject=event_has_subject)
        count += 1
    more = max(0, len(mistakes) - MAX_ISSUES) + sum(map(len, wrong)) - count
    return clients, WrongEntries(mistakes=tuple(mistakes[:MAX_ISSUES]), more=more, which=_format_positions(wrong))


def has_subject(entry: str | EntryDocument | None) -> bool:
    """Return True if the entry has its own `sub` or `sid`."""
    return type(entry) is dict and (entry.get("sub") is not None or entry.get("sid") is not None)


def abridge_issues(mistakes: Sequence[InputIssue], more: int = 0) -> tuple[InputIssue, ...]:
    """Return the first 20 mistakes, and one that counts the others."""
    more += max(0, len(mistakes) - MAX_ISSUES)
    last = [InputIssue("", f"and {more} more mistake{'' if more == 1 else 's'}")] if more else []
    return (*mistakes[:MAX_ISSUES], *last)


def parse_positions(which: str) -> tuple[range, ...]:
    """Parse `WrongEntries.which`. Raises ValueError if notifier did not write it."""
    ends = (part.partition("-") for part in which.split(","))
    return tuple(range(int(first), int(last or first) + 1) for first, _, last in ends)


def _to_entry(entry: str | EntryDocument) -> str | ClientEntry:
    if isinstance(entry, str):
        return entry
    return entry["client_id"] if len(entry) == 1 else _to_client_entry(entry)


def _to_client_entry(entry: EntryDocument) -> ClientEntry:
    return ClientEntry(**entry, no_address=entry.get("backchannel_logout_uri", "") is None)


def _explain_entry(raw: object, path: str, *, event_has_subject: bool) -> Iterator[InputIssue]:
    """Yield the mistakes of an invalid entry, at least one."""
    entry: str | EntryDocument
    try:
        if isinstance(raw, str):
            entry = _TEXT.validate_python(raw, strict=True)
        elif isinstance(raw, dict):
            entry = _ENTRY.validate_python(raw)
        else:
            yield InputIssue(path, f"must be a client_id or an object with one, not {kind_of(raw)}")
            return
    except ValidationError as error:
        issues = to_issues(error, path if isinstance(raw, str) else f"{path}.")
        yield from suggest_members(issues, f"{path}.", raw, ENTRY_MEMBERS) if isinstance(raw, dict) else issues
        return
    yield InputIssue(path, _find_mistake(entry, event_has_subject=event_has_subject) or "cannot be read")


def _find_mistake(entry: str | EntryDocument, *, event_has_subject: bool) -> str | None:
    """Return the mistake in a well-formed entry; None if it is valid."""
    if (entry if isinstance(entry, str) else entry["client_id"]) == "*":
        return 'is not a client_id; for all clients write "clients": "*", without a list'
    if not event_has_subject and not has_subject(entry):
        return "must have sub or sid, because the event has neither"
    return None


def _format_positions(runs: Sequence[range]) -> str:
    """Return the runs as text, such as `3-7,12`; an empty text if it would exceed 1 KiB."""
    max_runs = MAX_POSITIONS_BYTES // 2  # a run takes at least two bytes
    text = ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs[:max_runs])
    return text if len(runs) <= max_runs and len(text) <= MAX_POSITIONS_BYTES else ""
