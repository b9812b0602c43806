"""One layer of the registry: the rows of a source, and the clients that they describe."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from operator import is_
from typing import Any

from notifier.configuration.clients.authority import Authority
from notifier.configuration.clients.client_rows import Row, row_key
from notifier.model.client import ClientKey
from notifier.model.errors import InputIssue
from notifier.model.frozen import frozen


@frozen
class Layer:
    """The rows of one source. `file`: the name of the file, None if the source is not a file.

    `issuer`: the issuer of rows that name none. `authority`: the clients that the source may have; None for a file,
    which belongs to the operator. `context`: the folder that file names in its rows are relative to. `faults`: unusable
    clients, see `SourceAnswer`. `read`: False until the source has answered. `empty`: the source is allowed to have no
    clients.
    """

    name: str
    rows: Sequence[Any]
    issuer: str | None
    context: Mapping[str, Any]
    authority: Authority | None = None
    file: str | None = None
    faults: Sequence[InputIssue] = ()
    read: bool = True
    empty: bool = False

    def path(self, index: int) -> str:
        """Return the name of a row in errors."""
        if self.file is not None:
            return f"{self.file}[{index}]"
        row = self.rows[index]
        client_id = row.get("client_id") if isinstance(row, Mapping) else None
        return f"client {client_id!r} of registry source {self.name}"

    def left_out_at(self, fault: InputIssue, issuers: Sequence[str]) -> Sequence[str]:
        """Return the issuers at which an unusable client is left out."""
        of = self.authority
        return issuers if of is None else [iss for iss in of.issuers if iss in issuers and of.can_have(fault.path)]

    def applies_to(self, row: Any, iss: str) -> bool:
        """Return True if the settings of a row without an issuer apply to the client of issuer `iss`."""
        return self.authority is None or (iss in self.authority.issuers and self.reason_against(row) is None)

    def refused_at(self, row: Mapping[str, Any], issuers: Sequence[str]) -> Sequence[str]:
        """Return the issuers whose client a refused row means."""
        named = row.get("issuer")
        listed = [named] if isinstance(named, str) else named if isinstance(named, list) else ()
        bound = () if self.authority is None else self.authority.issuers
        return [iss for iss in issuers if iss in listed] or [iss for iss in issuers if iss in bound]

    def reason_against(self, row: Any) -> str | None:
        """Return why the source may not have the client of this row; None if it may."""
        return (
            None
            if self.authority is None or not isinstance(row, Mapping)
            else self.authority.reason_against(row, self.name)
        )

    def reason_without_issuer(self, row: Any) -> str | None:
        """Return why a row without configured issuers is refused; None if its metadata are invalid."""
        if self.authority is None or not isinstance(row, Mapping) or row.get("issuer"):
            return self.reason_against(row)
        return self.reason_against(row) or self.authority.reason_without_issuer(self.name)


def keys_of(layer: Layer, issuers: Sequence[str]) -> Iterator[tuple[ClientKey, int]]:
    """Yield the clients of the rows, with the index of the row. Invalid rows are skipped."""
    for index, row in enumerate(layer.rows):
        for iss in issuers_of(layer, row, issuers):
            yield (iss, row["client_id"]), index


class LayerClients:
    """The set of the clients in these layers.

    It makes no object per client: 100,000 new objects would trigger a full garbage collection.
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
        """Return True if the layers have this client."""
        return isinstance(key, tuple) and key[1] in self._names.get(key[0], ())


def issuers_of(layer: Layer, row: Any, issuers: Sequence[str]) -> Sequence[str]:
    """Return the issuers of the client in a row.

    The result is empty if the row is invalid, names an unknown issuer, or exceeds the source's authority.
    """
    if (
        not isinstance(row, Mapping)
        or not isinstance(row.get("client_id"), str)
        or layer.reason_against(row) is not None
    ):
        return ()
    named = row.get("issuer") or layer.issuer
    if named is None:
        return issuers if len(issuers) == 1 else ()
    if named in ("*", ["*"]):
        return issuers
    listed = [named] if isinstance(named, str) else named
    known = isinstance(listed, list) and all(iss in issuers for iss in listed)
    return tuple(dict.fromkeys(listed)) if known else ()


def keep_lost_rows(new: Layer, old: Layer, lost: Collection[ClientKey], issuers: Sequence[str]) -> Sequence[Row]:
    """Return the rows of the new layer, with the old rows of `lost` clients; the old sequence if all are the same."""

    def is_lost(layer: Layer, row: Any) -> bool:
        return any((iss, row["client_id"]) in lost for iss in issuers_of(layer, row, issuers))

    rows = [row for row in new.rows if not is_lost(new, row)] + [row for row in old.rows if is_lost(old, row)]
    same = len(rows) == len(old.rows) and all(map(is_, rows, old.rows))
    return old.rows if same else rows


def merge_rows(rows: Sequence[Row]) -> dict[str, Any]:
    """Merge rows: a later row overrides earlier ones, in the section `notifier` member by member."""
    whole: dict[str, Any] = {}
    for row in rows:
        sections = whole.get("notifier"), row.get("notifier")
        whole |= row
        if all(isinstance(member, Mapping) for member in sections):
            whole["notifier"] = {**sections[0], **sections[1]}  # type: ignore[dict-item]
    return whole


ROWS_PER_STEP = 500  # clients, after which the thread pauses to let the event loop run


def find_incomplete_issuers(
    layers: Sequence[Layer], issuers: Sequence[str], pause: Callable[[], None]
) -> Mapping[str, str]:
    """Return the issuers that may have unknown clients, with the reason: a source of the issuer has listed none."""
    incomplete: dict[str, str] = {}
    for layer in layers:
        if layer.authority is None or (layer.read and layer.empty):
            continue
        missing = {iss for iss in layer.authority.issuers if iss in issuers}
        for nth, row in enumerate(layer.rows):
            if not missing:
                break
            if nth % ROWS_PER_STEP == ROWS_PER_STEP - 1:
                pause()
            missing.difference_update(issuers_of(layer, row, issuers))
        reason = "has listed no client of this issuer" if layer.read else "was never read"
        incomplete |= dict.fromkeys(missing, f"registry source {layer.name} {reason}")
    return incomplete
