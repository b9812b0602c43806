"""One layer of the registry: the rows of a source, and which clients they are about."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from operator import is_
from typing import Any

from notifier.configuration.clients.authority import Authority
from notifier.configuration.clients.client_rows import Row, row_key
from notifier.model.client import ClientKey
from notifier.model.errors import Mistake
from notifier.model.frozen import frozen


@frozen
class Layer:
    """The rows of one source. `file`: the name of the file, None if the source is not a file.

    `issuer`: that of rows that name none. `authority`: the clients that its rows may be about, None for a file, which
    is the operator's own. `context`: the folder that names of files in its rows are relative to. `faults`: clients that
    the source's reader could not use, see `SourceAnswer`. `read`: False as long as the source has not answered.
    `empty`: the operator says that it may have no clients.
    """

    name: str
    rows: Sequence[Any]
    issuer: str | None
    context: Mapping[str, Any]
    authority: Authority | None = None
    file: str | None = None
    faults: Sequence[Mistake] = ()
    read: bool = True
    empty: bool = False

    def path(self, index: int) -> str:
        """Return how a mistake names a row."""
        if self.file is not None:
            return f"{self.file}[{index}]"
        row = self.rows[index]
        client_id = row.get("client_id") if isinstance(row, Mapping) else None
        return f"client {client_id!r} of registry source {self.name}"

    def left_out_at(self, fault: Mistake, issuers: Sequence[str]) -> Sequence[str]:
        """The issuers at which a client may be left out since the source's reader could not use it."""
        of = self.authority
        return issuers if of is None else [iss for iss in of.issuers if iss in issuers and of.has(fault.path)]

    def speaks_of(self, row: Any, iss: str) -> bool:
        """Whether settings in a row that names no issuer are about the client of this one."""
        return self.authority is None or (iss in self.authority.issuers and self.beyond(row) is None)

    def refused_at(self, row: Mapping[str, Any], issuers: Sequence[str]) -> Sequence[str]:
        """The issuers whose client a row means that is beyond its source."""
        named = row.get("issuer")
        listed = [named] if isinstance(named, str) else named if isinstance(named, list) else ()
        bound = () if self.authority is None else self.authority.issuers
        return [iss for iss in issuers if iss in listed] or [iss for iss in issuers if iss in bound]

    def beyond(self, row: Any) -> str | None:
        """Say why the row is about a client that the source may not speak of; None if it may."""
        return (
            None if self.authority is None or not isinstance(row, Mapping) else self.authority.why_not(row, self.name)
        )

    def of_nobody(self, row: Any) -> str | None:
        """Say why the row, of which `issuers_of` gives none, is about no client of ours; None if it is bad metadata."""
        if self.authority is None or not isinstance(row, Mapping) or row.get("issuer"):
            return self.beyond(row)
        return self.beyond(row) or self.authority.unnamed(self.name)


def keys_of(layer: Layer, issuers: Sequence[str]) -> Iterator[tuple[ClientKey, int]]:
    """Yield the clients that the rows are about. Rows that are no metadata are left out."""
    for index, row in enumerate(layer.rows):
        for iss in issuers_of(layer, row, issuers):
            yield (iss, row["client_id"]), index


class ClientsOf:
    """The clients that these layers are about: tells whether a key is one of them.

    It makes no object for each client: 100,000 new ones would have the garbage collector search all others.
    """

    def __init__(self, layers: Iterable[Layer], issuers: Sequence[str], but: Collection[tuple[str, str]] = ()) -> None:
        """Leave out the rows whose `row_key` is in `but`."""
        self._names: dict[str, set[str]] = {iss: set() for iss in issuers}
        for layer in layers:
            for row in layer.rows:
                if but and isinstance(row, Mapping) and row_key(row) in but:
                    continue
                for iss in issuers_of(layer, row, issuers):
                    self._names[iss].add(row["client_id"])

    def __contains__(self, key: object) -> bool:
        """True if it is one of them."""
        return isinstance(key, tuple) and key[1] in self._names.get(key[0], ())


def issuers_of(layer: Layer, row: Any, issuers: Sequence[str]) -> Sequence[str]:
    """The issuers that the row of the layer is about.

    None if it is no metadata, names an issuer that is not configured, or is beyond the source's authority.
    """
    if not isinstance(row, Mapping) or not isinstance(row.get("client_id"), str) or layer.beyond(row) is not None:
        return ()
    named = row.get("issuer") or layer.issuer
    if named is None:
        return issuers if len(issuers) == 1 else ()
    if named in ("*", ["*"]):
        return issuers
    listed = [named] if isinstance(named, str) else named
    known = isinstance(listed, list) and all(iss in issuers for iss in listed)
    return tuple(dict.fromkeys(listed)) if known else ()


def kept_back(new: Layer, old: Layer, lost: Collection[ClientKey], issuers: Sequence[str]) -> Sequence[Row]:
    """The rows of the new layer, with the old ones of these clients; those of the old layer if they are the same."""

    def about(layer: Layer, row: Any) -> bool:
        return any((iss, row["client_id"]) in lost for iss in issuers_of(layer, row, issuers))

    rows = [row for row in new.rows if not about(new, row)] + [row for row in old.rows if about(old, row)]
    same = len(rows) == len(old.rows) and all(map(is_, rows, old.rows))
    return old.rows if same else rows


def merged(rows: Sequence[Row]) -> dict[str, Any]:
    """One row of several: a later one overrides an earlier one, in the section `notifier` member by member."""
    whole: dict[str, Any] = {}
    for row in rows:
        sections = whole.get("notifier"), row.get("notifier")
        whole |= row
        if all(isinstance(member, Mapping) for member in sections):
            whole["notifier"] = {**sections[0], **sections[1]}  # type: ignore[dict-item]
    return whole


PART = 500  # clients, after which the thread pauses: the event loop waits for it meanwhile


def unsure_issuers(layers: Sequence[Layer], issuers: Sequence[str], pause: Callable[[], None]) -> Mapping[str, str]:
    """Say why an issuer may have clients that nobody here knows: a source of its clients has told of none."""
    unsure: dict[str, str] = {}
    for layer in layers:
        if layer.authority is None or (layer.read and layer.empty):
            continue
        silent = {iss for iss in layer.authority.issuers if iss in issuers}
        for nth, row in enumerate(layer.rows):
            if not silent:
                break
            if nth % PART == PART - 1:
                pause()
            silent.difference_update(issuers_of(layer, row, issuers))
        says = "has told of no client of this issuer" if layer.read else "was never read"
        unsure |= dict.fromkeys(silent, f"registry source {layer.name} {says}")
    return unsure
