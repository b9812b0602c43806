"""Defines the answers of registry sources, and the port of the readers that return them."""

import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, field
from typing import Any, Protocol, TypeAlias

from notifier.model.errors import InputIssue, SourceFault
from notifier.model.printable import counted
from notifier.model.record import copy_record, record
from notifier.settings.registry_settings import RegistrySourceSettings

NO_CLIENTS = (
    "answered, and has no client: perhaps our user may not see them; if it is right that there are none yet, set"
    " empty: true beside it"
)

MAX_SHARED_TEXTS = 1000  # of one reading; a source may have another in each row
MAX_ISSUES = 1000  # mistakes of rows that one reading lists; a text for each of 200,000 rows took 200 MiB
REASON_OMITTED = (
    f"cannot be used, and the reasons of {MAX_SHARED_TEXTS:,} others are listed: correct these, and its own is listed"
    " after the next reading"
)

Row: TypeAlias = Mapping[str, object]
"""The metadata of one client, by RFC 7591 names: `client_id`, `backchannel_logout_uri`, `notifier` and so on.

Members without a value in the source are absent; secrets of the client are never included. Values are JSON.
`id_token_signed_response_alg` may be a list: the first algorithm that a key of the issuer supports is used. Two further
members are not metadata: `aliases` lists other names of the client that events use (WSO2 identifies applications by
UUID); `issuer` is absent where the source's setting `issuer` has it.
"""


class SharedTexts(dict[str, str]):
    """The first MAX_SHARED_TEXTS texts about rows. Rows with the same mistake share its text, of some 150 bytes.

    All rows with further texts have REASON_OMITTED.
    """

    def __missing__(self, text: str) -> str:
        if len(self) == MAX_SHARED_TEXTS:
            return REASON_OMITTED
        self[text] = text
        return text


class RowIssues(list[InputIssue]):
    """Mistakes of rows. Call `bound` after each row."""

    _omitted_count = 0

    def bound(self) -> None:
        """Keep the first MAX_ISSUES mistakes, and count the others."""
        self._omitted_count += len(self[MAX_ISSUES:])
        del self[MAX_ISSUES:]

    def abridged(self) -> Sequence[InputIssue]:
        """Return the mistakes, and one that stands for the others."""
        self.bound()
        text = f"{self._omitted_count:,} more of these are not listed; correct the listed ones first"
        return [*self, InputIssue("registry", text, count=self._omitted_count)] if self._omitted_count else self


class HeldRow(tuple[Any, ...], Mapping[str, object]):
    """A row as a worker holds it: a tuple of the names and the values, which takes 130 bytes less than a dict.

    While a list changes, two rows of each client are held. Rows with the same names share these.
    """

    __slots__ = ()

    @classmethod
    def of(cls, row: Row, shared_names: dict[tuple[str, ...], tuple[str, ...]], last: Row | None = None) -> "HeldRow":
        """Return the row to hold. `shared_names`: the names of earlier rows.

        `last`: the client's row in the previous answer. Equal texts are the objects of that row.
        """
        names, values = tuple(row), [*row.values()]
        if last is not None:
            before = map(last.get, names)
            values = [old if type(new) is str and new == old else new for new, old in zip(values, before, strict=True)]
        return cls((shared_names.setdefault(names, names), *values))

    @property
    def _names(self) -> tuple[str, ...]:
        names: tuple[str, ...] = tuple.__getitem__(self, 0)
        return names

    def __getitem__(self, name: str) -> Any:  # type: ignore[override]
        """Return the member of this name. Raises KeyError."""
        if name not in self._names:
            raise KeyError(name)
        return tuple.__getitem__(self, self._names.index(name) + 1)

    def __contains__(self, name: object) -> bool:
        """Return True if there is a member of this name."""
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._names)

    def __len__(self) -> int:
        """Return the number of members."""
        return len(self._names)

    def __eq__(self, other: object) -> bool:
        """Return True if the other mapping has the same members."""
        return Mapping.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        """Return True unless the other mapping has the same members."""
        return not self == other

    __hash__ = None  # type: ignore[assignment]


RowKey: TypeAlias = str | tuple[str, str]
DAY_SECONDS = 86400.0  # seconds for which a client is new to its source


@record
class SourceAnswer:
    """All clients of a source, as of `at` (epoch seconds).

    `faults`: unusable clients, with the `client_id` as path. They are not in `rows`. `since`: when the source first
    listed a client (epoch seconds), by `row_key`. A client without an entry was in the first answer, or was first
    listed over a day ago.
    """

    rows: Sequence[Row] = field(repr=False)  # asyncio writes a task's result: 0.25 s for 100,000 clients
    at: float
    faults: tuple[InputIssue, ...] = ()
    since: Mapping[RowKey, float] = field(default_factory=dict, repr=False)


@record
class AnswerResult:
    """The result of applying an answer. `answer` is in force now. It is None if the source was dropped.

    `held_back`: the losses that were not applied. `sudden_change`: a report of many clients added or moved at once.
    """

    answer: SourceAnswer | None
    held_back: str | None = None
    sudden_change: str | None = None


def intern_names(members: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members with interned names. JSON parsing makes new names for each row: half of the row's memory."""
    return {sys.intern(str(name)): value for name, value in members.items()}


def row_key(row: Row) -> RowKey:
    """Return the key of a row within its source. It is mostly a string of the row, which takes no memory."""
    client_id, issuer = row.get("client_id"), row.get("issuer")
    name = client_id if type(client_id) is str else str(client_id)
    return name if issuer is None else (name, str(issuer))


def row_ids(rows: Sequence[Row]) -> set[int]:
    """Return the `id` of each row, computed in parts: one step would block other threads for 10 ms."""
    ids: set[int] = set()
    for start in range(0, len(rows), 2000):
        ids.update(map(id, rows[start : start + 2000]))
    return ids


class ClientsReader(Protocol):
    """Reads all clients of a source."""

    async def read(self, last: SourceAnswer | None) -> SourceAnswer:
        """Return the current clients; `last` itself (the same object) if the source reports no change.

        An unchanged row is the same object as in `last`, since only clients of other rows are built again.
        It runs in a dedicated thread and event loop, so it may block, and must end within the source's `timeout`.
        Secrets are read from their files each time. Raises SourceFault.
        """


class ValidatingReader:
    """A reader that refuses a first answer without a usable client, unless the source has `empty: true`.

    A database hides rows from a user without permission, and does not report that there are any.
    """

    def __init__(self, reader: ClientsReader, source: RegistrySourceSettings) -> None:
        self._reader = reader
        self._source = source

    async def read(self, last: SourceAnswer | None) -> SourceAnswer:
        """See ClientsReader."""
        answer = await self._reader.read(last)
        if last is None and not (answer.rows or self._source.empty):
            first = next(iter(answer.faults), None)
            wrong = f"none of its {counted(len(answer.faults), 'client')} can be used: {first}"
            raise SourceFault(NO_CLIENTS if first is None else wrong)
        return answer


BuildReader: TypeAlias = Callable[[RegistrySourceSettings], ClientsReader]
"""Makes the reader of a source that is not a file."""


def add_first_seen(answer: SourceAnswer, last: SourceAnswer | None) -> SourceAnswer:
    """Return the answer with the times when the source first listed each client, in `since`.

    Clients of the first answer, and clients listed for a day, have no entry. A client whose row names another issuer
    than before is not new. Otherwise two answers could remove all clients.
    """
    if last is None:
        return answer
    listed_at: dict[str, float] = {}  # by client_id alone
    for row in last.rows:
        client_id, first_at = str(row["client_id"]), last.since.get(row_key(row), 0.0)
        listed_at[client_id] = min(first_at, listed_at.get(client_id, first_at))
    firsts = ((row_key(row), listed_at.get(str(row["client_id"]), answer.at)) for row in answer.rows)
    return copy_record(answer, since={key: at for key, at in firsts if at > answer.at - DAY_SECONDS})


def find_new_clients(answer: SourceAnswer | None, now: float) -> Collection[RowKey]:
    """Return the clients that the source has listed for less than a day."""
    return set() if answer is None else {key for key, at in answer.since.items() if at > now - DAY_SECONDS}


@record
class SourceState:
    """The state of a source. `age`: seconds since its last reading.

    Without a reading, the age counts from when the source was configured or dropped. `changed`: many of its
    clients were added or moved at once within the last hour. `held_back`: losses in its last answer are not applied.
    """

    name: str
    kind: str
    up: bool
    age: float
    clients: int = 0
    problem: str | None = None
    changed: bool = False
    held_back: bool = False

    def document(self, *, whole: bool) -> dict[str, object]:
        """Return the state as JSON. Unless `whole`, omit `clients` and `problem`, which may concern other issuers."""
        return asdict(self) | ({} if whole else {"clients": None, "problem": None})
