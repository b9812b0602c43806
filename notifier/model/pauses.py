"""The pauses that operators request at run time: the document in the queue, its changes, and the port to it. Pure.

One document has at most MAX_PAUSES pauses: the pauses in force, and the last that ended. Each change increases its
version, so that a reader detects an older document. A pause ends by itself at `until`, by the clock of each reader. No
change stores that, since the clock of its writer may be fast. All times are in epoch seconds.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Annotated, Final, Literal, Protocol, Self

from pydantic import Field, TypeAdapter

from notifier.model.client import ClientKey
from notifier.model.documents.documents import parse
from notifier.model.errors import ChangeRefused, MalformedEvent, QueueError, UnknownVersion
from notifier.model.moment import format_moment_for_people
from notifier.model.printable import printable
from notifier.model.record import copy_record, record
from notifier.model.registry import Registry
from notifier.model.shared_resources import shared_bound

MAX_PAUSES = shared_bound(1_000)  # in force or ended
MAX_ENDED_PAUSES = shared_bound(200)  # the history that is shown
MAX_REASON_LENGTH = 200
MAX_DOCUMENT_BYTES = shared_bound(8 * 1024 * 1024)  # 180 kB are usual, 3 MB have 1,000 pauses with the longest names
MAX_VERSION = 2**53  # of the document; further changes keep it
FORMAT_VERSION: Final = 1

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

    @property
    def end(self) -> float:
        """Return when the pause ends or has ended."""
        return self.until if self.ended_at is None else min(self.until, self.ended_at)

    @property
    def text(self) -> str:
        """Return who paused the client, until when and why, for people."""
        until = format_moment_for_people(self.until)
        return f"paused by {printable(self.who)} until {until}: {printable(self.reason)}"


@record
class PauseDocument:
    """All pauses, sorted by their end, the last end first. `version` increases by each change; `v` is the format's."""

    v: Literal[1] = FORMAT_VERSION
    version: Annotated[int, Field(ge=0, le=MAX_VERSION)]
    pauses: Annotated[tuple[Pause, ...], Field(max_length=MAX_PAUSES)]

    def in_force(self, now: float) -> dict[ClientKey, Pause]:
        """Return the pauses in force, by client. If a restored document has several of a client, the newest counts."""
        by_start = sorted(self.pauses, key=lambda each: each.since)
        last = {pause.key: pause for pause in by_start if pause.ended_at is None}
        return {key: pause for key, pause in last.items() if now < pause.until}

    def list_present_and_ended(self, now: float) -> Sequence[Pause]:
        """Return the pauses to show: those in force, then the last that ended, each with the time of its end."""
        present = {*self.in_force(now).values()}
        over = [copy_record(each, ended_at=min(each.end, now)) for each in self.pauses if each not in present]
        return [*(each for each in self.pauses if each in present), *over[:MAX_ENDED_PAUSES]]

    def pause_clients(self, pauses: Sequence[Pause], now: float) -> Self:
        """Return the document with these new pauses. Each ends the client's former pause when it begins.

        Return the same document if it has them. Raises ChangeRefused if too many pauses are in force.
        """
        new = {pause.key: pause for pause in pauses}
        if {each.id for each in pauses} <= {each.id for each in self.pauses}:
            return self
        if len(self.in_force(now).keys() | new.keys()) > MAX_PAUSES:
            text = f"{MAX_PAUSES:,} clients are paused already, which is the most; resume some of them first"
            raise ChangeRefused(text)
        kept = [each if (by := new.get(each.key)) is None else _end(each, by.since, by.who) for each in self.pauses]
        return self._change([*new.values(), *kept])

    def resume_clients(self, keys: Collection[ClientKey], who: str, now: float) -> Self:
        """Return the document in which `who` has ended the clients' pauses; the same document if none is in force."""
        if self.in_force(now).keys().isdisjoint(keys):
            return self
        return self._change(_end(each, now, who) if each.key in keys else each for each in self.pauses)

    def limit_ends(self, registry: Registry, now: float) -> Self:
        """Return the document in which no pause of a registered client is longer than the client's `max_paused`.

        Anyone who may publish into the queue can write another `until`, and the clock of a writer may be wrong.
        """
        pauses = (
            copy_record(each, until=min(each.until, min(each.since, now) + max_paused_of(registry, each.key)))
            if each.client_id in registry.clients_of(each.iss)
            else each
            for each in self.pauses
        )
        return copy_record(self, pauses=tuple(pauses))

    def merge(self, own: Self) -> Self:
        """Return the document to store if this document is older than this process's copy: all pauses of both.

        Of two copies of a pause the ended one counts. If this document is not older it is returned itself.
        """
        if self.version >= own.version:
            return self
        by_id = {each.id: each for each in own.pauses}
        by_id |= {each.id: each for each in self.pauses if each.id not in by_id or each.ended_at is not None}
        return own._change(by_id.values())

    def _change(self, pauses: Iterable[Pause]) -> Self:
        """Return the next version, with the MAX_PAUSES pauses whose ends are last: the oldest ended are dropped."""
        last = sorted(pauses, key=lambda each: each.end, reverse=True)[:MAX_PAUSES]
        return copy_record(self, version=min(self.version + 1, MAX_VERSION), pauses=tuple(last))


_DOCUMENT = TypeAdapter(PauseDocument)
NO_PAUSES = PauseDocument(version=0, pauses=())


def read_pauses(text: bytes) -> PauseDocument:
    """Parse the document. Raises UnknownVersion (a later release wrote it), or QueueError (it is malformed)."""
    try:
        return _parse(text)
    except ValueError as error:
        raise QueueError(
            f"the document of pauses {error}; NotifierPausesUnread in the runbook has the remedy"
        ) from None


def write_pauses(document: PauseDocument) -> bytes:
    """Return the document as JSON. Raises ChangeRefused if nobody could read it, such as because of a long name."""
    try:
        text = _DOCUMENT.dump_json(document)
        _parse(text)
    except ValueError as error:  # also of the encoding, whose text has the name
        reason = error if type(error) is ValueError else "has a name that is not Unicode"
        raise ChangeRefused(f"nothing was changed: the document of pauses {reason}") from None
    return text


def _parse(text: bytes) -> PauseDocument:
    """Return the document. Raises UnknownVersion, or ValueError with the predicate of a sentence."""
    if len(text) > MAX_DOCUMENT_BYTES:
        raise ValueError(f"has more than {MAX_DOCUMENT_BYTES:,} bytes")
    try:
        return parse(_DOCUMENT, text, latest=FORMAT_VERSION)
    except UnknownVersion as error:
        raise UnknownVersion(f"a later release wrote the pauses ({error}); update this one to read them") from None
    except MalformedEvent as error:
        raise ValueError(f"is malformed: {error}") from None


def max_paused_of(registry: Registry, key: ClientKey) -> float:
    """Return the seconds for which the client, which need not be registered, may be paused."""
    client = registry.clients_of(key[0]).get(key[1]) or registry.default_of(key[0])
    return client.retry.max_paused


def _end(pause: Pause, now: float, who: str) -> Pause:
    """Return the pause as ended by `who`, unless it is over."""
    is_over = pause.ended_at is not None or pause.until <= now
    return pause if is_over else copy_record(pause, ended_at=now, ended_by=who)


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
