"""Merges the rows of all registry sources, member by member, and builds clients from the result.

An error in a file is a configuration error. An error in a row of another source affects that client only: it is left
out of the registry, which keeps the reason.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from notifier.configuration.clients.aliases import aliases_of
from notifier.configuration.clients.authority import MOVED, ListBounds, bounds_of, kind_of, limit_row
from notifier.configuration.clients.client_metadata import RegistryBuilder
from notifier.configuration.clients.client_rows import Row
from notifier.configuration.clients.layer import ROWS_PER_STEP, Layer, find_incomplete_issuers, issuers_of, merge_rows
from notifier.configuration.clients.registry_checks import AlgorithmsOf, explain_unsignable
from notifier.configuration.clients.route_grants import ADDRESSES, withheld_routes_of
from notifier.model.client import Client, ClientKey
from notifier.model.errors import InputIssue
from notifier.model.frozen import frozen, replace
from notifier.model.printable import printable
from notifier.model.registry import Registry
from notifier.settings.service_settings import Settings

_SETTINGS = frozenset({"client_id", "issuer", "notifier"})  # such a row only adds settings to other sources' clients


@frozen
class BuiltRegistry:
    """The registry. `mistakes`: errors in files. `faults`: left-out clients. `warnings`: settings without effect."""

    registry: Registry
    mistakes: Sequence[InputIssue]
    warnings: Sequence[InputIssue]
    faults: Sequence[InputIssue] = ()


@frozen
class BuildContext:
    """The inputs of a registry besides its rows.

    `algorithms_of` returns the algorithms that an issuer's keys can sign with. `invalid_sections`: the sections of the
    settings with an error. Checks that depend on them are skipped.
    """

    settings: Settings
    algorithms_of: AlgorithmsOf
    invalid_sections: frozenset[str] = frozenset()


_Parts: TypeAlias = list[tuple[int, int]]  # per layer that has the client: its index, and the row's index in it


def build_registry(
    build_context: BuildContext, layers: Sequence[Layer], *, pause: Callable[[], None] = lambda: None
) -> BuiltRegistry:
    """Build the registry. `pause` is called after each part."""
    return complete_registry(LayerMerge(build_context, layers, pause).run(), build_context, layers, pause)


def complete_registry(
    built: BuiltRegistry, build_context: BuildContext, layers: Sequence[Layer], pause: Callable[[], None]
) -> BuiltRegistry:
    """Add the parts that depend on all layers and are never patched: aliases, and issuers that may lack clients."""
    issuers = tuple(build_context.settings.issuers)
    aliases, taken = aliases_of(layers, issuers, pause)
    incomplete = find_incomplete_issuers(layers, issuers, pause)
    registry = dataclasses.replace(built.registry, aliases=aliases, taken_aliases=taken, incomplete=incomplete)
    return replace(built, registry=registry)


def client_id_of(row: Any) -> str:
    client_id = row.get("client_id") if isinstance(row, dict) else None
    return client_id if isinstance(client_id, str) else ""


def _with_source(layer: Layer, why: str) -> str:
    return f"{printable(why)} (registry source {layer.name})"


def _fault(path: str, text: str) -> InputIssue:
    """Return an error of a row, without the control sequences that names in a list may contain."""
    return InputIssue(path, printable(text))


class LayerMerge:
    def __init__(
        self,
        build_context: BuildContext,
        layers: Sequence[Layer],
        pause: Callable[[], None],
        *,
        refreshed: bool = False,
    ) -> None:
        """`refreshed`: the files are in force already, so any inconsistency is a fault of the client."""
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
        builder = self._builder
        parts = self._collect_rows()
        for nth, key in enumerate([*parts]):
            if nth % ROWS_PER_STEP == ROWS_PER_STEP - 1:
                self._pause()
            self._add(key, parts.pop(key))  # popped one by one: freeing all at the end would block the event loop
        self._note_faults()
        return BuiltRegistry(
            registry=builder.registry(), mistakes=builder.mistakes, warnings=builder.warnings, faults=self._faults
        )

    def _note_faults(self) -> None:
        """Record the clients that have no row because their source's reader could not use it."""
        for layer in self._layers:
            for fault in layer.faults:
                path = f"client {fault.path!r} of registry source {layer.name}"
                self._faults.append(_fault(path, fault.text))
                for iss in layer.left_out_at(fault, self._issuers):
                    if self._builder.client(iss, fault.path) is None:
                        self._builder.leave_out(iss, fault.path, _with_source(layer, fault.text))

    def _collect_rows(self) -> dict[ClientKey, _Parts]:
        """Return the rows of each client, in the order of the layers."""
        parts_of: dict[ClientKey, _Parts] = {}
        additions: list[tuple[int, int]] = []
        for nth, layer in enumerate(self._layers):
            for index, row in enumerate(layer.rows):
                if index % ROWS_PER_STEP == ROWS_PER_STEP - 1:
                    self._pause()
                if nth and isinstance(row, Mapping) and "notifier" in row and row.keys() <= _SETTINGS:
                    additions.append((nth, index))
                    continue
                issuers = issuers_of(layer, row, self._issuers)
                if not issuers:
                    self._report_row(layer, index)
                    self._note_refused(layer, row)
                for iss in issuers:
                    parts = parts_of.setdefault((iss, row["client_id"]), [])
                    if parts and parts[-1][0] == nth:
                        self._report_duplicate(layer, index, parts[-1][1], iss)
                    else:
                        parts.append((nth, index))
        for nth, index in additions:
            self._add_settings(parts_of, nth, index)
        return parts_of

    def _add_settings(self, parts_of: dict[ClientKey, _Parts], nth: int, index: int) -> None:
        """Add a row of settings to its client: at all issuers, if it names none."""
        layer = self._layers[nth]
        row = layer.rows[index]
        client_id = row.get("client_id")
        if row.get("issuer") is None and layer.issuer is None and layer.reason_against(row) is None:
            issuers = self._issuers if layer.authority is None else layer.authority.issuers
        else:
            issuers = issuers_of(layer, row, self._issuers)
        known = [parts for iss in issuers if isinstance(client_id, str) and (parts := parts_of.get((iss, client_id)))]
        for parts in known:
            parts.append((nth, index))
        if not issuers or not isinstance(client_id, str):
            self._report_row(layer, index)
        elif not known:
            self._check_settings(layer, index)
            if all(other.read for other in self._layers):
                text = "has settings only, and no other source has this client: they have no effect"
                self._builder.warnings.append(InputIssue(layer.path(index), text))

    def _check_settings(self, layer: Layer, index: int) -> None:
        """Check settings of an unknown client: its source may be unavailable now and answer later."""
        if layer.file is None or self._refreshed:
            return
        checker = RegistryBuilder(self._build_context.settings, self._build_context.invalid_sections)
        checker.add({"issuer": layer.issuer or "*", **layer.rows[index]}, layer.path(index), {**layer.context})
        self._builder.mistakes += checker.mistakes

    def _report_row(self, layer: Layer, index: int) -> None:
        """Record the errors of a row without a client."""
        scratch, row = self._scratch, layer.rows[index]
        if (why := layer.reason_without_issuer(row)) is not None:
            self._faults.append(_fault(layer.path(index), why))
            return
        if layer.issuer is not None and isinstance(row, Mapping):
            row = {"issuer": layer.issuer, **row}
        scratch.add(row, path := layer.path(index), {**layer.context})
        if layer.file is None:
            mistakes = (InputIssue(each.path.removeprefix(path).lstrip("."), each.text) for each in scratch.mistakes)
            self._faults += [_fault(path, str(mistake)) for mistake in mistakes]
        else:
            self._builder.mistakes += scratch.mistakes
        scratch.mistakes.clear()

    def _note_refused(self, layer: Layer, row: Any) -> None:
        """Record why the client of this row is unknown, for lookups of the client. Rows share equal texts."""
        if isinstance(row, Mapping) and client_id_of(row) and (why := layer.reason_without_issuer(row)) is not None:
            text = self._texts.setdefault(why, _with_source(layer, why))
            for iss in layer.refused_at(row, self._issuers):
                self._builder.refuse(iss, row["client_id"], text)

    def _report_duplicate(self, layer: Layer, index: int, first: int, iss: str) -> None:
        text = f"is registered at {iss} already, by {layer.path(first)}; remove one of the two"
        mistakes = self._faults if layer.file is None else self._builder.mistakes
        mistakes.append(InputIssue(f"{layer.path(index)}.client_id", text))

    def _add(self, key: ClientKey, parts: _Parts) -> None:
        """Build a client. If rows of lists are invalid, it is built from its rows in files, or left out."""
        parts.sort(key=lambda part: self._layers[part[0]].file is not None)  # files override lists
        rows = tuple(self._limit_row(nth, index, key) for nth, index in parts)
        file_rows = tuple(row for (nth, _), row in zip(parts, rows, strict=True) if self._layers[nth].file is not None)
        nth, index = parts[-1]
        path, mixed = self._layers[nth].path(index), len(file_rows) < len(rows)
        errors = self._build_client(key, path, parts, rows, file_rows)
        if not errors:
            if mixed:
                self._note_moved(key, parts)
            return
        file_errors = self._build_client(key, path, parts, file_rows, file_rows) if mixed and file_rows else errors
        list_errors = [
            mistake
            for mistake in errors
            if self._refreshed or (mixed and (not file_rows or mistake not in file_errors))
        ]
        self._builder.mistakes += [mistake for mistake in errors if mistake not in list_errors]
        if list_errors:
            self._leave_out(key, path, parts, list_errors, usable=mixed and bool(file_rows) and not file_errors)

    def _build_client(
        self, key: ClientKey, path: str, parts: _Parts, rows: Sequence[Row], file_rows: Sequence[Row]
    ) -> list[InputIssue]:
        """Add the client of these rows to the builder, and return its errors, which the builder does not keep."""
        (iss, client_id), builder = key, self._builder
        file_context = next((self._layers[n].context for n, _ in reversed(parts) if self._layers[n].file), {})
        merged_row = {**merge_rows(rows), "client_id": client_id, "issuer": iss}
        merged_row.pop("aliases", None)
        mixed = len(file_rows) < len(rows)  # lists have set members too
        algorithms = merged_row.get("id_token_signed_response_alg")
        if isinstance(algorithms, list) and mixed:
            merged_row["id_token_signed_response_alg"] = self._first_signable(algorithms, iss)
        list_only = [name for name in ADDRESSES & merged_row.keys() if not any(name in row for row in file_rows)]
        mistake_count, warning_count = len(builder.mistakes), len(builder.warnings)
        builder.add(merged_row, path, {**file_context}, list_only)
        errors = builder.mistakes[mistake_count:]
        client = builder.client(iss, client_id)
        if not errors and client is not None and mixed and (text := self._reason_unsignable(client)) is not None:
            errors = [InputIssue(f"{path}.id_token_signed_response_alg", text)]
        if errors:
            del builder.mistakes[mistake_count:], builder.warnings[warning_count:]
        return errors

    def _leave_out(
        self, key: ClientKey, path: str, parts: _Parts, errors: Sequence[InputIssue], *, usable: bool
    ) -> None:
        """Record invalid values of lists. `usable`: the client is valid without them."""
        (iss, client_id), builder = key, self._builder
        nth, index = max(parts, key=lambda part: (self._layers[part[0]].file is None, part))
        last_path = self._layers[nth].path(index)
        mistakes = [InputIssue(mistake.path.removeprefix(path).lstrip("."), mistake.text) for mistake in errors]
        client = builder.client(iss, client_id)
        if not usable or client is None or client.logout_uri is None:
            builder.leave_out(iss, client_id, _with_source(self._layers[nth], "; ".join(map(str, mistakes))))
        self._faults += [_fault(last_path, str(mistake)) for mistake in mistakes]

    def _note_moved(self, key: ClientKey, parts: _Parts) -> None:
        """Record a client that a list has moved to an origin that no file names."""
        client = self._builder.client(*key)
        if client is not None and (why := withheld_routes_of(client)):
            nth, index = [part for part in parts if self._layers[part[0]].file is None][-1]
            layer = self._layers[nth]
            for text in why:
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
        """Return the first of a list of algorithms that a key supports, as servers with such lists do."""
        able = self._algorithms_of(iss)
        return next((algorithm for algorithm in algorithms if algorithm in able), next(iter(algorithms), None))

    def _reason_unsignable(self, client: Client) -> str | None:
        able = self._algorithms_of(client.iss)
        if client.backchannel_logout_uri is None or client.token.alg in able:
            return None
        return explain_unsignable(client.token.alg, client.iss, able)
