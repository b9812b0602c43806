"""Assigns the rows of all layers to clients. Rows that describe no client of a configured issuer are errors."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from notifier.configuration.clients.client_metadata import RegistryBuilder
from notifier.configuration.clients.client_rows import SharedTexts
from notifier.configuration.clients.followers import has_channel, is_follower_row
from notifier.configuration.clients.layer import ROWS_PER_STEP, BuildContext, Layer, client_id_of, issuers_of
from notifier.model.client import ClientKey
from notifier.model.errors import InputIssue
from notifier.model.printable import printable

_SETTINGS = frozenset({"client_id", "issuer", "notifier"})  # such a row only adds settings to other sources' clients

RowPositions: TypeAlias = list[tuple[int, int]]
"""The rows of one client: for each layer with a row, the index of the layer, and the index of the row in the layer."""


def _has_only_settings(layer: Layer, row: Any) -> bool:
    """Return True if the row only adds settings to a client of other sources.

    A follower in a file is a client, and so is a row in a file with a channel, which has an address.
    """
    if not isinstance(row, Mapping) or "notifier" not in row or not row.keys() <= _SETTINGS:
        return False
    return layer.file is None or not (is_follower_row(row) or has_channel(row["notifier"]))


def with_source(layer: Layer, reason: str) -> str:
    """Return the reason with the name of the source."""
    return f"{printable(reason)} (registry source {layer.name})"


def source_fault(path: str, text: str) -> InputIssue:
    """Return a fault of a source."""
    return InputIssue(path, printable(text))  # names in a row may contain control sequences


class RowCollection:
    """One assignment of rows to clients. Errors of files go to the `builder`, errors of lists to `faults`."""

    def __init__(
        self,
        build_context: BuildContext,
        layers: Sequence[Layer],
        pause: Callable[[], None],
        builder: RegistryBuilder,
        faults: list[InputIssue],
        *,
        refreshed: bool,
    ) -> None:
        self._build_context = build_context
        self._layers = layers
        self._pause = pause
        self._builder = builder
        self._faults = faults
        self._refreshed = refreshed
        self._issuers = tuple(build_context.settings.issuers)
        self._scratch = RegistryBuilder(build_context.settings, build_context.invalid_sections)
        self._texts = SharedTexts()

    def collect(self) -> dict[ClientKey, RowPositions]:
        """Return the rows of each client, in the order of the layers, but rows that have only settings last."""
        positions: dict[ClientKey, RowPositions] = {}
        settings_rows: list[tuple[int, int]] = []
        for nth, layer in enumerate(self._layers):
            for index, row in enumerate(layer.rows):
                if index % ROWS_PER_STEP == ROWS_PER_STEP - 1:
                    self._pause()
                if nth and _has_only_settings(layer, row):
                    settings_rows.append((nth, index))
                    continue
                issuers = issuers_of(layer, row, self._issuers)
                if not issuers:
                    self._report_row(layer, index)
                    self._record_refused(layer, row)
                    self._builder.mistakes.bound()
                for iss in issuers:
                    client_rows = positions.setdefault((iss, row["client_id"]), [])
                    if client_rows and client_rows[-1][0] == nth:
                        self._report_duplicate(layer, index, client_rows[-1][1], iss)
                    else:
                        client_rows.append((nth, index))
        for nth, index in settings_rows:
            self._add_settings(positions, nth, index)
            self._builder.mistakes.bound()
            self._builder.warnings.bound()
        return positions

    def _add_settings(self, positions: dict[ClientKey, RowPositions], nth: int, index: int) -> None:
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
            self._faults.append(source_fault(path, self._texts[reason]))
            return
        if isinstance(row, Mapping):
            row = {**row} if layer.issuer is None else {"issuer": layer.issuer, **row}
        scratch.add(row, path, {**layer.context})
        if layer.file is None:
            mistakes = (InputIssue(each.path.removeprefix(path).lstrip("."), each.text) for each in scratch.mistakes)
            self._faults += [source_fault(path, self._texts[str(mistake)]) for mistake in mistakes]
        else:
            self._builder.mistakes += scratch.mistakes
        scratch.mistakes.clear()
        scratch.warnings.clear()

    def _record_refused(self, layer: Layer, row: Any) -> None:
        """Record why the client of this row is unknown, for lookups of the client. Rows share equal texts."""
        reason = layer.reason_without_issuer(row) if client_id_of(row) else None
        if reason is not None:
            text = self._texts[with_source(layer, reason)]
            for iss in layer.refused_at(row, self._issuers):
                self._builder.refuse(iss, row["client_id"], text)

    def _report_duplicate(self, layer: Layer, index: int, first: int, iss: str) -> None:
        text = f"is registered at {iss} already, by {layer.path(first)}; remove one of the two"
        mistakes = self._faults if layer.file is None else self._builder.mistakes
        mistakes.append(InputIssue(f"{layer.path(index)}.client_id", text))
        self._builder.mistakes.bound()
