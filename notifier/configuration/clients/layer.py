"""Defines the layers that `layers.py` merges to the registry: each has the rows of one source.

A row has the unchecked metadata of a client. A client is identified by its issuer and `client_id`.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from operator import is_
from pathlib import Path
from typing import Any

from notifier.configuration.clients.authority import Authority
from notifier.configuration.clients.client_rows import Row, RowKey, row_key
from notifier.configuration.clients.registry_checks import AlgorithmsOf
from notifier.model.client import ClientKey
from notifier.model.errors import InputIssue
from notifier.model.record import record
from notifier.model.registry import Registry
from notifier.settings.service_settings import Settings


@record
class Layer:
    """The rows of one source. `file`: the name of the file, None if the source is not a file.

    `issuer`: the issuer of rows that name none. `authority`: the clients that the source may have, None for a file,
    which may have all clients. `context`: the folder that file names in the rows are relative to. `faults`: unusable
    clients, with the `client_id` as path. `read`: False until the source has answered. `may_be_empty`: the source may
    have no clients.
    """

    name: str
    rows: Sequence[Any]
    issuer: str | None
    context: Mapping[str, Any]
    authority: Authority | None = None
    file: str | None = None
    faults: Sequence[InputIssue] = ()
    read: bool = True
    may_be_empty: bool = False

    def path(self, index: int) -> str:
        """Return the name of a row in errors."""
        if self.file is not None:
            return f"{self.file}[{index}]"
        row = self.rows[index]
        client_id = row.get("client_id") if isinstance(row, Mapping) else None
        return f"client {client_id!r} of registry source {self.name}"

    def left_out_at(self, fault: InputIssue, issuers: Sequence[str]) -> Sequence[str]:
        """Return the issuers at which an unusable client is left out: none if the source may not have the client."""
        if self.authority is None:
            return issuers
        client_id = fault.path
        return [iss for iss in self.authority.issuers if iss in issuers] if self.authority.can_have(client_id) else []

    def applies_to(self, row: Any, iss: str) -> bool:
        """Return True if the settings of a row without an issuer apply to the client of issuer `iss`."""
        return self.authority is None or (iss in self.authority.issuers and self.reason_against(row) is None)

    def refused_at(self, row: Mapping[str, Any], issuers: Sequence[str]) -> Sequence[str]:
        """Return the issuers at which the client of a refused row is unknown.

        They are the configured issuers that the row names. If it names none, they are the issuers of the source.
        """
        issuer = row.get("issuer")
        row_issuers = issuer if isinstance(issuer, list) else [issuer]
        source_issuers = () if self.authority is None else self.authority.issuers
        refused_at = [iss for iss in issuers if iss in row_issuers]
        return refused_at or [iss for iss in issuers if iss in source_issuers]

    def reason_against(self, row: Any) -> str | None:
        """Return why the source may not have the client of this row; None if it may."""
        if self.authority is None or not isinstance(row, Mapping):
            return None
        return self.authority.reason_against(row, self.name)

    def reason_without_issuer(self, row: Any) -> str | None:
        """Return why a row without a usable issuer is refused; None if the check of its metadata finds the error."""
        reason = self.reason_against(row)
        if reason is not None or self.authority is None or not isinstance(row, Mapping) or row.get("issuer"):
            return reason
        return self.authority.reason_without_issuer(self.name)


@record
class BuiltRegistry:
    """The registry. `mistakes`: errors in files. `faults`: errors in rows of lists. `warnings`: doubtful values.

    `unusable_files`: the missing and empty files that clients name, each with an error in `mistakes`.
    """

    registry: Registry
    mistakes: Sequence[InputIssue]
    warnings: Sequence[InputIssue]
    faults: Sequence[InputIssue] = ()
    unusable_files: frozenset[Path] | set[Path] = frozenset()


@record
class BuildContext:
    """The inputs of a registry besides its rows.

    `algorithms_of` returns the algorithms that an issuer's keys can sign with. `invalid_sections`: the sections of the
    settings with an error. Checks that depend on them are skipped.
    """

    settings: Settings
    algorithms_of: AlgorithmsOf
    invalid_sections: frozenset[str] = frozenset()


def keys_of(layer: Layer, issuers: Sequence[str]) -> Iterator[tuple[ClientKey, int]]:
    """Yield the client of each row (issuer, `client_id`), with the index of the row. Invalid rows are skipped."""
    for index, row in enumerate(layer.rows):
        for iss in issuers_of(layer, row, issuers):
            yield (iss, row["client_id"]), index


class LayerClients:
    """The set of the clients in these layers.

    It makes no object for each client, since 100,000 new objects would trigger a full garbage collection.
    """

    def __init__(self, layers: Iterable[Layer], issuers: Sequence[str], excluded: Collection[RowKey] = ()) -> None:
        """`excluded`: the keys of rows (see `row_key`) to leave out."""
        self._client_ids: dict[str, set[str]] = {iss: set() for iss in issuers}
        for layer in layers:
            for row in layer.rows:
                if excluded and isinstance(row, Mapping) and row_key(row) in excluded:
                    continue
                for iss in issuers_of(layer, row, issuers):
                    self._client_ids[iss].add(row["client_id"])

    def __contains__(self, key: object) -> bool:
        """Return True if the layers have this client (issuer, `client_id`)."""
        return isinstance(key, tuple) and key[1] in self._client_ids.get(key[0], ())


def client_id_of(row: Any) -> str:
    """Return the `client_id` of a row; empty if it has none."""
    client_id = row.get("client_id") if isinstance(row, Mapping) else None
    return client_id if isinstance(client_id, str) else ""


def issuers_of(layer: Layer, row: Any, issuers: Sequence[str]) -> Sequence[str]:
    """Return the issuers of the client in a row, given all configured `issuers`.

    The result is empty if the row is invalid, names an unknown issuer, or exceeds the source's authority.
    """
    if not isinstance(row, Mapping) or not isinstance(row.get("client_id"), str):
        return ()
    if layer.reason_against(row) is not None:
        return ()
    issuer = row.get("issuer") or layer.issuer
    if issuer is None:
        return issuers if len(issuers) == 1 else ()
    if issuer in ("*", ["*"]):
        return issuers
    row_issuers = [issuer] if isinstance(issuer, str) else issuer
    are_configured = isinstance(row_issuers, list) and all(iss in issuers for iss in row_issuers)
    return tuple(dict.fromkeys(row_issuers)) if are_configured else ()


def keep_lost_rows(new: Layer, old: Layer, lost: Collection[ClientKey], issuers: Sequence[str]) -> Sequence[Row]:
    """Return the rows of the new layer, except that `lost` clients have their rows of the old layer.

    If the rows are those of the old layer, the result is the object `old.rows`. `issuers`: all configured issuers.
    """

    def is_lost(layer: Layer, row: Any) -> bool:
        return any((iss, row["client_id"]) in lost for iss in issuers_of(layer, row, issuers))

    rows = [row for row in new.rows if not is_lost(new, row)] + [row for row in old.rows if is_lost(old, row)]
    is_unchanged = len(rows) == len(old.rows) and all(map(is_, rows, old.rows))
    return old.rows if is_unchanged else rows


def merge_rows(rows: Sequence[Row]) -> dict[str, Any]:
    """Merge rows. A later row overrides earlier rows; its section `notifier` does so member by member."""
    merged: dict[str, Any] = {}
    for row in rows:
        old_section, section = merged.get("notifier"), row.get("notifier")
        merged |= row
        if isinstance(old_section, Mapping) and isinstance(section, Mapping):
            merged["notifier"] = {**old_section, **section}
    return merged


ROWS_PER_STEP = 500  # clients, after which the thread pauses to let the event loop run


def find_incomplete_issuers(
    layers: Sequence[Layer], issuers: Sequence[str], pause: Callable[[], None]
) -> Mapping[str, str]:
    """Return the issuers that may have unknown clients, each with the reason.

    One of their sources was never read, or lists none of their clients and is not declared `empty`. `pause` is called
    every ROWS_PER_STEP rows.
    """
    incomplete: dict[str, str] = {}
    for layer in layers:
        if layer.authority is None or (layer.read and layer.may_be_empty):
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
