"""Merges the rows of all registry sources, member by member, and builds the clients of the registry from the result.

A layer has the rows of one source. A source that is not a file is called a list. An error in a file is a configuration
error. An error in a row of a list affects only the row's client: the client is built from its rows in files alone, or
left out of the registry, which keeps the reason.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from notifier.configuration.clients.aliases import aliases_of
from notifier.configuration.clients.authority import MOVED, ListBounds, bounds_of, kind_of, limit_row
from notifier.configuration.clients.client_metadata import RegistryBuilder
from notifier.configuration.clients.client_rows import Row
from notifier.configuration.clients.layer import (
    ROWS_PER_STEP,
    BuildContext,
    BuiltRegistry,
    Layer,
    find_incomplete_issuers,
    issuers_of,
    merge_rows,
)
from notifier.configuration.clients.registry_checks import explain_unsignable
from notifier.configuration.clients.route_grants import ADDRESSES, find_withheld_reasons
from notifier.model.client import ClientKey
from notifier.model.errors import InputIssue
from notifier.model.frozen import replace
from notifier.model.printable import printable

_SETTINGS = frozenset({"client_id", "issuer", "notifier"})  # such a row only adds settings to other sources' clients


_RowPositions: TypeAlias = list[tuple[int, int]]
"""The rows of one client: for each layer with a row, the index of the layer, and the index of the row in the layer."""


def build_registry(
    build_context: BuildContext, layers: Sequence[Layer], *, pause: Callable[[], None] = lambda: None
) -> BuiltRegistry:
    """Build the registry. `pause` is called every ROWS_PER_STEP rows, to let the event loop run."""
    return complete_registry(LayerMerge(build_context, layers, pause).run(), build_context, layers, pause)


def complete_registry(
    built: BuiltRegistry, build_context: BuildContext, layers: Sequence[Layer], pause: Callable[[], None]
) -> BuiltRegistry:
    """Add to a built registry what is computed from all layers: the aliases, and the issuers with unknown clients."""
    issuers = tuple(build_context.settings.issuers)
    aliases, taken = aliases_of(layers, issuers, pause)
    incomplete = find_incomplete_issuers(layers, issuers, pause)
    registry = dataclasses.replace(built.registry, aliases=aliases, taken_aliases=taken, incomplete=incomplete)
    return replace(built, registry=registry)


def client_id_of(row: Any) -> str:
    client_id = row.get("client_id") if isinstance(row, dict) else None
    return client_id if isinstance(client_id, str) else ""


def _with_source(layer: Layer, reason: str) -> str:
    return f"{printable(reason)} (registry source {layer.name})"


def _fault(path: str, text: str) -> InputIssue:
    return InputIssue(path, printable(text))  # names in a row may contain control sequences


class LayerMerge:
    """One merge of layers to a registry. It is used once."""

    def __init__(
        self,
        build_context: BuildContext,
        layers: Sequence[Layer],
        pause: Callable[[], None],
        *,
        refreshed: bool = False,
    ) -> None:
        """`refreshed`: only a list has changed. The files were valid before, so each error is a fault of the list."""
        self._layers = layers
        self._refreshed = refreshed
        self._pause = pause
        self._build_context = build_context
        self._algorithms_of = build_context.algorithms_of
        self._issuers = tuple(build_context.settings.issuers)
        self._scratch = RegistryBuilder(build_context.settings, build_context.invalid_sections)
        self._builder = RegistryBuilder(build_context.settings, build_context.invalid_sections)
        self._faults: list[InputIssue] = []
        self._bounds: dict[str, ListBounds] = {}
        self._texts: dict[str, str] = {}

    def run(self) -> BuiltRegistry:
        """Return the registry of the merged rows, with all errors and warnings."""
        builder = self._builder
        positions = self._collect_rows()
        for nth, key in enumerate([*positions]):
            if nth % ROWS_PER_STEP == ROWS_PER_STEP - 1:
                self._pause()
            self._add_client(key, positions.pop(key))  # popped: freeing all at the end would block the event loop
        self._record_reader_faults()
        return BuiltRegistry(
            registry=builder.registry(), mistakes=builder.mistakes, warnings=builder.warnings, faults=self._faults
        )

    def _record_reader_faults(self) -> None:
        """Record the clients that a source's reader reports as unusable. Leave out each that has not been built."""
        for layer in self._layers:
            for fault in layer.faults:
                path = f"client {fault.path!r} of registry source {layer.name}"
                self._faults.append(_fault(path, fault.text))
                for iss in layer.left_out_at(fault, self._issuers):
                    if self._builder.client(iss, fault.path) is None:
                        self._builder.leave_out(iss, fault.path, _with_source(layer, fault.text))

    def _collect_rows(self) -> dict[ClientKey, _RowPositions]:
        """Return the rows of each client, in the order of the layers, but rows that have only settings last."""
        positions: dict[ClientKey, _RowPositions] = {}
        settings_rows: list[tuple[int, int]] = []
        for nth, layer in enumerate(self._layers):
            for index, row in enumerate(layer.rows):
                if index % ROWS_PER_STEP == ROWS_PER_STEP - 1:
                    self._pause()
                if nth and isinstance(row, Mapping) and "notifier" in row and row.keys() <= _SETTINGS:
                    settings_rows.append((nth, index))
                    continue
                issuers = issuers_of(layer, row, self._issuers)
                if not issuers:
                    self._report_row(layer, index)
                    self._record_refused(layer, row)
                for iss in issuers:
                    client_rows = positions.setdefault((iss, row["client_id"]), [])
                    if client_rows and client_rows[-1][0] == nth:
                        self._report_duplicate(layer, index, client_rows[-1][1], iss)
                    else:
                        client_rows.append((nth, index))
        for nth, index in settings_rows:
            self._add_settings(positions, nth, index)
        return positions

    def _add_settings(self, positions: dict[ClientKey, _RowPositions], nth: int, index: int) -> None:
        """Add a row that has only settings to its client. Without an issuer it applies to all issuers of its source."""
        layer = self._layers[nth]
        row = layer.rows[index]
        client_id = row.get("client_id")
        names_no_issuer = row.get("issuer") is None and layer.issuer is None
        if names_no_issuer and layer.reason_against(row) is None:
            issuers = self._issuers if layer.authority is None else layer.authority.issuers
        else:
            issuers = issuers_of(layer, row, self._issuers)
        if not issuers or not isinstance(client_id, str):
            self._report_row(layer, index)
            return
        clients = [positions[iss, client_id] for iss in issuers if (iss, client_id) in positions]
        for client_rows in clients:
            client_rows.append((nth, index))
        if not clients:
            self._check_settings(layer, index)
            if all(other.read for other in self._layers):
                text = "has settings only, and no other source has this client: they have no effect"
                self._builder.warnings.append(InputIssue(layer.path(index), text))

    def _check_settings(self, layer: Layer, index: int) -> None:
        """Record the errors of settings in a file for an unknown client, which an unavailable source may have."""
        if layer.file is None or self._refreshed:
            return
        checker = RegistryBuilder(self._build_context.settings, self._build_context.invalid_sections)
        checker.add({"issuer": layer.issuer or "*", **layer.rows[index]}, layer.path(index), {**layer.context})
        self._builder.mistakes += checker.mistakes

    def _report_row(self, layer: Layer, index: int) -> None:
        """Record the errors of a row that describes no client of a configured issuer."""
        scratch, row, path = self._scratch, layer.rows[index], layer.path(index)
        reason = layer.reason_without_issuer(row)
        if reason is not None:
            self._faults.append(_fault(path, reason))
            return
        if layer.issuer is not None and isinstance(row, Mapping):
            row = {"issuer": layer.issuer, **row}
        scratch.add(row, path, {**layer.context})
        if layer.file is None:
            mistakes = (InputIssue(each.path.removeprefix(path).lstrip("."), each.text) for each in scratch.mistakes)
            self._faults += [_fault(path, str(mistake)) for mistake in mistakes]
        else:
            self._builder.mistakes += scratch.mistakes
        scratch.mistakes.clear()

    def _record_refused(self, layer: Layer, row: Any) -> None:
        """Record why the client of this row is unknown, for lookups of the client. Rows share equal texts."""
        reason = layer.reason_without_issuer(row) if client_id_of(row) else None
        if reason is not None:
            text = self._texts.setdefault(reason, _with_source(layer, reason))
            for iss in layer.refused_at(row, self._issuers):
                self._builder.refuse(iss, row["client_id"], text)

    def _report_duplicate(self, layer: Layer, index: int, first: int, iss: str) -> None:
        text = f"is registered at {iss} already, by {layer.path(first)}; remove one of the two"
        mistakes = self._faults if layer.file is None else self._builder.mistakes
        mistakes.append(InputIssue(f"{layer.path(index)}.client_id", text))

    def _add_client(self, key: ClientKey, positions: _RowPositions) -> None:
        """Build a client. If rows of lists are invalid, it is built from its rows in files, or left out."""
        positions.sort(key=lambda position: self._layers[position[0]].file is not None)  # files override lists
        rows = tuple(self._limit_row(nth, index, key) for nth, index in positions)
        is_from_file = [self._layers[nth].file is not None for nth, _ in positions]
        file_rows = tuple(row for row, from_file in zip(rows, is_from_file, strict=True) if from_file)
        has_list_rows = not all(is_from_file)
        path = self._layers[positions[-1][0]].path(positions[-1][1])
        errors = self._build_client(key, path, positions, rows, file_rows)
        if not errors:
            if has_list_rows:
                self._record_moved(key, positions)
            return
        has_both = has_list_rows and bool(file_rows)
        if has_both:  # built again without the lists, so that their errors have no effect on the client of the files
            file_errors = self._build_client(key, path, positions, file_rows, file_rows)
        else:
            file_errors = [] if has_list_rows else errors
        list_errors = errors if self._refreshed else [each for each in errors if each not in file_errors]
        self._builder.mistakes += [mistake for mistake in errors if mistake not in list_errors]
        if list_errors:
            self._record_list_errors(key, path, positions, list_errors, usable=has_both and not file_errors)

    def _build_client(
        self, key: ClientKey, path: str, positions: _RowPositions, rows: Sequence[Row], file_rows: Sequence[Row]
    ) -> list[InputIssue]:
        """Add the client of these rows to the builder. Return its errors, which the builder does not keep.

        `path`: the name of the client in errors. `file_rows`: those of the `rows` that are in files.
        """
        (iss, client_id), builder = key, self._builder
        file_context = next((self._layers[nth].context for nth, _ in reversed(positions) if self._layers[nth].file), {})
        merged_row = {**merge_rows(rows), "client_id": client_id, "issuer": iss}
        merged_row.pop("aliases", None)
        has_list_rows = len(file_rows) < len(rows)
        algorithms = merged_row.get("id_token_signed_response_alg")
        if isinstance(algorithms, list) and has_list_rows:
            merged_row["id_token_signed_response_alg"] = self._first_signable(algorithms, iss)
        list_only = [name for name in ADDRESSES & merged_row.keys() if not any(name in row for row in file_rows)]
        mistake_count, warning_count = len(builder.mistakes), len(builder.warnings)
        builder.add(merged_row, path, {**file_context}, list_only)
        errors = builder.mistakes[mistake_count:]
        client = builder.client(iss, client_id)
        if not errors and client is not None and client.backchannel_logout_uri is not None and has_list_rows:
            supported = self._algorithms_of(iss)
            if client.token.alg not in supported:
                text = explain_unsignable(client.token.alg, iss, supported)
                errors = [InputIssue(f"{path}.id_token_signed_response_alg", text)]
        if errors:
            del builder.mistakes[mistake_count:], builder.warnings[warning_count:]
        return errors

    def _record_list_errors(
        self, key: ClientKey, path: str, positions: _RowPositions, errors: Sequence[InputIssue], *, usable: bool
    ) -> None:
        """Record errors of lists, and leave out their client unless it is `usable` without the lists."""
        (iss, client_id), builder = key, self._builder
        # The last row of a list. After a refresh all rows may be in files: then the last of these.
        nth, index = max(positions, key=lambda position: (self._layers[position[0]].file is None, position))
        last_path = self._layers[nth].path(index)
        mistakes = [InputIssue(mistake.path.removeprefix(path).lstrip("."), mistake.text) for mistake in errors]
        client = builder.client(iss, client_id)
        if not usable or client is None or client.logout_uri is None:
            builder.leave_out(iss, client_id, _with_source(self._layers[nth], "; ".join(map(str, mistakes))))
        self._faults += [_fault(last_path, str(mistake)) for mistake in mistakes]

    def _record_moved(self, key: ClientKey, positions: _RowPositions) -> None:
        """Record a client that a list has moved to an origin that no file names."""
        client = self._builder.client(*key)
        reasons = [] if client is None else find_withheld_reasons(client)
        if client is not None and reasons:
            nth, index = [position for position in positions if self._layers[position[0]].file is None][-1]
            layer = self._layers[nth]
            for text in reasons:
                self._builder.beyond.add(client.key, (layer.name, MOVED), InputIssue(layer.path(index), text))

    def _limit_row(self, nth: int, index: int, key: ClientKey) -> Row:
        """Return the row with only the values that its source may set. Record the ignored values."""
        layer, iss = self._layers[nth], key[0]
        row: Row = layer.rows[index]
        if layer.file is not None:
            return row
        if iss not in self._bounds:
            self._bounds[iss] = bounds_of(self._build_context.settings, iss)
        row, ignored = limit_row(row, self._bounds[iss], layer.authority)
        for name, why in ignored.items():
            mistake = _fault(layer.path(index), f"{name}: {why}")
            self._builder.beyond.add(key, (layer.name, kind_of(name, mistake.text)), mistake)
        return row

    def _first_signable(self, algorithms: Sequence[object], iss: str) -> object:
        """Return the first algorithm that a key of the issuer supports. If there is none, return the first of all."""
        supported = self._algorithms_of(iss)
        default = next(iter(algorithms), None)
        return next((algorithm for algorithm in algorithms if algorithm in supported), default)
