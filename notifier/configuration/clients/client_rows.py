"""Defines the answers of registry sources: rows of metadata, not checked yet."""

import sys
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import asdict, field
from typing import Any, Protocol, TypeAlias

from notifier.model.errors import Mistake, SourceFault
from notifier.model.frozen import frozen, replace
from notifier.model.printable import counted
from notifier.settings.registry_settings import RegistrySourceSettings

NO_CLIENTS = (
    "answered, and has no client: perhaps our user may not see them; if it is right that there are none yet, set"
    " empty: true beside it"
)

Row: TypeAlias = Mapping[str, object]
"""The metadata of one client, by RFC 7591 names: `client_id`, `backchannel_logout_uri`, `notifier` and so on.

What the source does not say is absent. It has no secret of the client. `id_token_signed_response_alg` may be a list:
the first that a key of the issuer can sign with is meant. Two further members are not metadata: `aliases` is a list of
other names of the client that events use (WSO2 names applications by UUID); `issuer` is absent where the source's own
setting `issuer` tells it. A value is JSON.
"""

DAY = 86400.0  # seconds for which a client is new to its source


@frozen
class SourceAnswer:
    """All clients of one source, as it answered at `at` (epoch seconds).

    `mark`: what the source needs to ask again whether anything changed, such as an ETag. `faults`: clients that cannot
    be used, each by its `client_id` as the path; they are not in `rows`. A fault concerns that client alone.
    `since`: when the source first named a client (epoch seconds), by `row_key`; a client that is not there has been
    there always.
    """

    rows: Sequence[Row] = field(repr=False)  # asyncio writes a task's result: 0.25 s for 100,000 clients
    at: float
    mark: str | None = None
    faults: tuple[Mistake, ...] = ()
    since: Mapping[tuple[str, str], float] = field(default_factory=dict, repr=False)


@frozen
class AnswerResult:
    """What was made of an answer. `answer` is in force now; None if the source has none any more.

    `held_back` says which losses are not taken. `sudden` says that many clients have come or moved at once.
    """

    answer: SourceAnswer | None
    held_back: str | None = None
    sudden: str | None = None


def share_names(members: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members under names that all rows share. JSON makes names anew for each row: half of its memory."""
    return {sys.intern(str(name)): value for name, value in members.items()}


def row_key(row: Row) -> tuple[str, str]:
    """Return what tells a client of a source from the others."""
    return str(row.get("issuer")), str(row.get("client_id"))


def identities(rows: Sequence[Row]) -> set[int]:
    """The `id` of each row. In parts: in one step it would keep other threads waiting for 10 ms."""
    ids: set[int] = set()
    for start in range(0, len(rows), 2000):
        ids.update(map(id, rows[start : start + 2000]))
    return ids


class ClientsReader(Protocol):
    """Reads all clients of one source, as often as it is asked."""

    async def read(self, last: SourceAnswer | None) -> SourceAnswer:
        """Return what the source holds now; `last` itself (the same object) if the source says that nothing changed.

        It runs in a thread and an event loop of its own, so it may block, and it ends by itself within the source's
        `timeout`. Secrets are read from their files each time. Raises SourceFault.
        """


class BelievedReader:
    """A reader whose first answer is not believed if no client of it can be used, unless `empty: true` says so.

    A user of a database without rights to a row sees none, and nothing says that there are any.
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

    async def warnings(self) -> Sequence[str]:
        """Say what is dangerous about the source."""
        warn: Callable[[], Awaitable[Sequence[str]]] | None = getattr(self._reader, "warnings", None)
        return () if warn is None else await warn()


BuildReader: TypeAlias = Callable[[RegistrySourceSettings], ClientsReader]
"""Makes the reader of a source that is not a file."""


def seen_since(answer: SourceAnswer, last: SourceAnswer | None) -> SourceAnswer:
    """The answer with since when the source names its clients. Those of its first answer it always had.

    A client whose row names its issuer in another way is no new one: else two answers could empty a list.
    """
    if last is None:
        return answer
    before: dict[str, float] = {}
    for key in map(row_key, last.rows):
        at = last.since.get(key, 0.0)
        before[key[1]] = min(at, before.get(key[1], at))
    firsts = {key: before.get(key[1], answer.at) for key in map(row_key, answer.rows)}
    return replace(answer, since={key: at for key, at in firsts.items() if at > answer.at - DAY})


def new_at(answer: SourceAnswer | None, now: float) -> Collection[tuple[str, str]]:
    """The clients that the source has named for less than a day."""
    return set() if answer is None else {key for key, at in answer.since.items() if at > now - DAY}


@frozen
class SourceState:
    """The state of a source. `age`: seconds since it last confirmed what is in force; without an answer, since asked.

    `changed`: within the last hour many of its clients came or moved at once.
    """

    name: str
    kind: str
    up: bool
    age: float
    clients: int = 0
    problem: str | None = None
    changed: bool = False

    def document(self, *, whole: bool) -> dict[str, object]:
        """Return the state as JSON. Unless `whole`, without what may concern any issuer: `clients` and `problem`."""
        return asdict(self) | ({} if whole else {"clients": None, "problem": None})
