"""The pauses that operators request at run time: the document in the queue, its changes, and the port to it. Pure.

One document has all pauses: those in force, at most MAX_PAUSES, and the last MAX_ENDED_PAUSES that have ended. Each
change increases its version, so that a reader detects an older document. A pause ends by itself at `until`, which is by
the clock of its writer. All times are in epoch seconds.
"""

from collections.abc import Callable, Iterable
from typing import Annotated, Final, Protocol

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.model.client import ClientKey
from notifier.model.errors import QueueError, UnknownVersion
from notifier.model.moment import format_moment_for_people
from notifier.model.printable import printable
from notifier.model.record import copy_record, record
from notifier.model.shared_resources import shared_bound

MAX_PAUSES = shared_bound(1_000)  # in force
MAX_ENDED_PAUSES = shared_bound(200)  # the history
MAX_REASON_LENGTH = 200
MAX_DOCUMENT_BYTES = shared_bound(8 * 1024 * 1024)  # 1,200 pauses with the longest names
_VERSION: Final = 1

_Name = Annotated[str, Field(min_length=1, max_length=1024)]
_Seconds = Annotated[float, Field(ge=0, lt=1e11, allow_inf_nan=False)]


@record
class Pause:
    """A pause of one client. `ended_at` and `ended_by`: when it ended, and who resumed the client, if somebody did."""

    id: Annotated[str, Field(min_length=1, max_length=100)]
    iss: _Name
    client_id: _Name
    who: Annotated[str, Field(max_length=1024)]
    reason: Annotated[str, Field(max_length=MAX_REASON_LENGTH)]
    since: _Seconds
    until: _Seconds
    ended_at: _Seconds | None = None
    ended_by: Annotated[str, Field(max_length=1024)] | None = None

    @property
    def key(self) -> ClientKey:
        """Return the issuer and the client ID."""
        return self.iss, self.client_id

    def is_in_force(self, now: float) -> bool:
        """Return whether the pause has neither ended nor been ended."""
        return self.ended_at is None and now < self.until

    @property
    def text(self) -> str:
        """Return who paused the client, until when and why, for people."""
        until = format_moment_for_people(self.until)
        return f"paused by {printable(self.who)} until {until}: {printable(self.reason)}"


@record
class PauseDocument:
    """All pauses, those in force before those that have ended, the latest first. `version` increases by each change."""

    version: int = 0
    pauses: tuple[Pause, ...] = ()


class _Document(TypedDict):
    v: int
    version: Annotated[int, Field(ge=0, le=2**53)]
    pauses: Annotated[list[Pause], Field(max_length=MAX_PAUSES + MAX_ENDED_PAUSES)]


class _Version(TypedDict):
    v: int


_DOCUMENT, _VERSION_ONLY = TypeAdapter(_Document), TypeAdapter(_Version)
NO_PAUSES = PauseDocument()


def read_pauses(text: bytes) -> PauseDocument:
    """Parse the document. Raises UnknownVersion (a later release wrote it), or QueueError (it is malformed)."""
    if len(text) > MAX_DOCUMENT_BYTES:
        raise QueueError(f"the document of pauses has more than {MAX_DOCUMENT_BYTES:,} bytes; {_REMEDY}")
    try:
        if (version := _VERSION_ONLY.validate_json(text)["v"]) > _VERSION:
            raise UnknownVersion(f"a later release wrote the pauses (v: {version}); update this one to read them")
        document = _DOCUMENT.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(map(str, first["loc"]))
        raise QueueError(
            f"the document of pauses is malformed ({path or 'not JSON'}: {first['type']}); {_REMEDY}"
        ) from None
    return PauseDocument(version=document["version"], pauses=tuple(document["pauses"]))


_REMEDY = "NotifierPausesUnread in the runbook has the remedy"


def write_pauses(document: PauseDocument) -> bytes:
    """Return the document as JSON."""
    return _DOCUMENT.dump_json({"v": _VERSION, "version": document.version, "pauses": list(document.pauses)})


def in_force(document: PauseDocument, now: float) -> dict[ClientKey, Pause]:
    """Return the pauses in force, by client."""
    return {pause.key: pause for pause in document.pauses if pause.is_in_force(now)}


def pause_clients(document: PauseDocument, pauses: Iterable[Pause], now: float) -> PauseDocument:
    """Return the document with these new pauses; a pause in force of the same client is replaced, and so ends.

    Raises QueueError if too many pauses are in force.
    """
    new = {pause.key: pause for pause in pauses}
    kept = [_end(each, now, new[each.key].who) if each.key in new else each for each in expire(document, now).pauses]
    if sum(each.ended_at is None for each in kept) + len(new) > MAX_PAUSES:
        raise QueueError(f"{MAX_PAUSES:,} clients are paused already, which is the most; resume some of them first")
    return _build(document, [*new.values(), *kept])


def resume_client(document: PauseDocument, key: ClientKey, who: str, now: float) -> PauseDocument:
    """Return the document in which the client's pause is ended by `who`; the same document if it has none in force."""
    if key not in in_force(document, now):
        return document
    return _build(
        document, [_end(each, now, who) if each.key == key else each for each in expire(document, now).pauses]
    )


def expire(document: PauseDocument, now: float) -> PauseDocument:
    """Return the document in which the pauses whose time is over are marked as ended."""
    is_over: Callable[[Pause], bool] = lambda each: each.ended_at is None and each.until <= now  # noqa: E731
    if not any(map(is_over, document.pauses)):
        return document
    pauses = [copy_record(each, ended_at=each.until) if is_over(each) else each for each in document.pauses]
    return copy_record(document, pauses=_sort(pauses))


def merge_documents(stored: PauseDocument, own: PauseDocument) -> PauseDocument:
    """Return the document to store if `stored` is older than this process's copy: all pauses of both.

    Of two copies of a pause the ended one counts; of two pauses in force of a client, the later one. If `stored` is not
    older it is returned itself.
    """
    if stored.version >= own.version:
        return stored
    by_id = {each.id: each for each in own.pauses}
    for each in stored.pauses:
        if each.id not in by_id or each.ended_at is not None:
            by_id[each.id] = each
    latest: dict[ClientKey, Pause] = {}
    for each in sorted(by_id.values(), key=lambda each: each.since):
        if each.ended_at is None:
            if (former := latest.get(each.key)) is not None:
                by_id[former.id] = _end(former, each.since, each.who)
            latest[each.key] = each
    return _build(own, by_id.values())


def _end(pause: Pause, now: float, who: str) -> Pause:
    return pause if pause.ended_at is not None else copy_record(pause, ended_at=now, ended_by=who)


def _build(former: PauseDocument, pauses: Iterable[Pause]) -> PauseDocument:
    return PauseDocument(version=former.version + 1, pauses=_sort(pauses))


def _sort(pauses: Iterable[Pause]) -> tuple[Pause, ...]:
    """Return the pauses in force, then the last ended ones, each by the time of their start or end."""
    pauses = list(pauses)
    present = sorted((each for each in pauses if each.ended_at is None), key=lambda each: -each.since)
    ended = sorted((each for each in pauses if each.ended_at is not None), key=lambda each: -(each.ended_at or 0.0))
    return (*present[:MAX_PAUSES], *ended[:MAX_ENDED_PAUSES])


class Register(Protocol):
    """The pauses, in one durable document that all processes share. One process changes it at a time.

    Both methods work while the queue is closed, and restore a lost document from this process's copy.
    """

    async def read(self) -> PauseDocument:
        """Return the document, whose version is never lower than at an earlier call. Raises QueueError."""

    async def change(self, edit: Callable[[PauseDocument], PauseDocument]) -> PauseDocument:
        """Replace the document by what `edit` returns for it, and return that once it is durable.

        `edit` may be called again, and may raise: then nothing changes; nor if it returns its argument.
        Raises ChangeUncertain if the change may take effect later, another QueueError if it does not.
        """
