"""Merges the rows of all registry sources, member by member, and builds the clients of the registry from the result.

A layer has the rows of one source. A source that is not a file is called a list. An error in a file is a configuration
error. An error in a row of a list affects only the row's client: the client is built from its rows in files alone, or
left out of the registry, which keeps the reason.
"""

from collections import deque
from collections.abc import Callable, Container, Mapping, Sequence
from functools import cached_property

from notifier.configuration.clients.aliases import complete_registry
from notifier.configuration.clients.authority import MOVED, ListBounds, bounds_of, kind_of, limit_row
from notifier.configuration.clients.client_metadata import RegistryBuilder
from notifier.configuration.clients.client_rows import Row, SharedTexts
from notifier.configuration.clients.followers import (
    Leaders,
    SourcedRow,
    explain_missing_leader,
    find_leader_error,
    find_leaders,
    inherit_rows,
    leave_out_listed_followers,
)
from notifier.configuration.clients.layer import (
    ROWS_PER_STEP,
    BuildContext,
    BuiltRegistry,
    Layer,
    client_id_of,
    merge_rows,
)
from notifier.configuration.clients.registry_checks import explain_unsignable, is_sent_signatures
from notifier.configuration.clients.route_grants import ADDRESSES, find_withheld_reasons
from notifier.configuration.clients.row_positions import RowCollection, RowPositions, source_fault, with_source
from notifier.model.client import ClientKey
from notifier.model.errors import InputIssue
from notifier.model.printable import printable

MAX_SUGGESTIONS = 100  # rows with ignored members for which a known name is suggested: as many as have a text
_USUAL_IN_LISTS = ADDRESSES | {"backchannel_logout_session_required"}


def build_registry(
    build_context: BuildContext, layers: Sequence[Layer], *, pause: Callable[[], None] = lambda: None
) -> BuiltRegistry:
    """Build the registry. `pause` is called every ROWS_PER_STEP rows, to let the event loop run."""
    issuers = tuple(build_context.settings.issuers)
    leaders = find_leaders(layers, issuers, pause)
    layers = leave_out_listed_followers(layers, leaders, issuers, pause)
    built = LayerMerge(build_context, layers, leaders, pause).run()
    return complete_registry(built, build_context, layers, leaders, pause)


class LayerMerge:
    """One merge of layers to a registry. It is used once."""

    def __init__(
        self,
        build_context: BuildContext,
        layers: Sequence[Layer],
        leaders: Leaders,
        pause: Callable[[], None],
        *,
        refreshed: bool = False,
    ) -> None:
        """`leaders`: the leaders of all followers in these layers.

        `refreshed`: only a list has changed. The files were valid before, so each error is a fault of the list.
        """
        self._layers = layers
        self._refreshed = refreshed
        self._pause = pause
        self._build_context = build_context
        self._algorithms_of = build_context.algorithms_of
        self._issuers = tuple(build_context.settings.issuers)
        self._leaders = leaders
        self._rows_of_leaders: dict[ClientKey, Sequence[SourcedRow]] = {
            (iss, leader): [] for (iss, _), leader in self._leaders.items()
        }
        self._builder = RegistryBuilder(build_context.settings, build_context.invalid_sections)
        self._faults: list[InputIssue] = []
        self._bounds: dict[str, ListBounds] = {}
        self._suggestion_count = 0
        self._texts = SharedTexts()

    def run(self) -> BuiltRegistry:
        """Return the registry of the merged rows, with all errors and warnings."""
        builder = self._builder
        rows = RowCollection(
            self._build_context, self._layers, self._pause, builder, self._faults, refreshed=self._refreshed
        )
        positions = rows.collect()
        self._record_leader_errors(positions)
        keys = [*positions] if self._leaders else []
        leaders_first = deque(sorted(keys, key=self._leaders.__contains__) or positions)
        for nth in range(len(positions)):
            if nth % ROWS_PER_STEP == ROWS_PER_STEP - 1:
                self._pause()
            key = leaders_first.popleft()
            client_rows = positions.pop(key)  # popped: its memory serves for the client
            self._add_client(key, client_rows)
            builder.mistakes.bound()
            builder.warnings.bound()
            builder.forget_names()  # which are unique here, and take 190 bytes each
            if key in self._leaders:
                self._leave_out_without_leader(key, client_rows[-1])
        if self._leaders:
            builder.sort(keys)
        self._record_reader_faults()
        return BuiltRegistry(
            registry=builder.registry(), mistakes=builder.mistakes.abridged(), warnings=builder.warnings.abridged(),
            faults=self._faults, unusable_files=builder.unusable_files,
        )  # fmt: skip

    def _record_reader_faults(self) -> None:
        """Record the clients that a source's reader reports as unusable. Leave out each that has not been built.

        A follower that has not been built has a reason already.
        """
        for layer in self._layers:
            for fault in layer.faults:
                path = f"client {fault.path!r} of registry source {layer.name}"
                self._faults.append(source_fault(path, fault.text))
                for iss in layer.left_out_at(fault, self._issuers):
                    if self._builder.client(iss, fault.path) is None and (iss, fault.path) not in self._leaders:
                        self._builder.leave_out(iss, fault.path, self._texts[with_source(layer, fault.text)])

    def _add_client(self, key: ClientKey, positions: RowPositions) -> None:
        """Build a client. If rows of lists are invalid, it is built from its rows in files, or left out."""
        positions.sort(key=lambda position: self._layers[position[0]].file is not None)  # files override lists
        rows = [(self._limit_row(nth, index, key), self._layers[nth].file is not None) for nth, index in positions]
        leader = self._leaders.get(key)
        if leader is not None:
            rows = inherit_rows(self._rows_of_leaders[key[0], leader], rows)
        file_rows = [row for row in rows if row[1]]
        has_list_rows = len(file_rows) < len(rows)
        path = self._layers[positions[-1][0]].path(positions[-1][1])
        errors = self._build_client(key, path, positions, rows)
        if not errors:
            if has_list_rows and leader is None:
                self._record_moved(key, positions)
            if has_list_rows:
                self._warn_of_pairwise_by_list(key, rows)
            return
        has_both = has_list_rows and bool(file_rows)
        if has_both:  # built again without the lists, so that their errors have no effect on the client of the files
            file_errors = self._build_client(key, path, positions, file_rows)
        else:
            file_errors = [] if has_list_rows else errors
        list_errors = errors if self._refreshed else [each for each in errors if each not in file_errors]
        self._builder.mistakes += [mistake for mistake in errors if mistake not in list_errors]
        if list_errors:
            usable = has_both and not file_errors and leader is None  # a follower needs all values of its leader
            self._record_list_errors(key, path, positions, list_errors, usable=usable)

    def _record_leader_errors(self, positions: Mapping[ClientKey, RowPositions]) -> None:
        """Record an error for each row of a file whose follower cannot follow its leader."""
        issues: dict[InputIssue, None] = {}
        for (iss, client_id), leader in self._leaders.items():
            lists = (layer for layer in self._layers if layer.file is None)
            could_be_listed = any(iss in layer.left_out_at(InputIssue(leader, ""), self._issuers) for layer in lists)
            is_known = could_be_listed or (iss, leader) in positions
            issuers = () if is_known else [other for other in self._issuers if (other, leader) in positions]
            text = find_leader_error((iss, client_id), self._leaders, issuers)
            nth, index = positions[iss, client_id][-1]
            if text is not None:
                issues[InputIssue(f"{self._layers[nth].path(index)}.notifier.follows", text)] = None
        self._builder.mistakes += issues

    def _leave_out_without_leader(self, key: ClientKey, position: tuple[int, int]) -> None:
        """Leave out a follower whose leader is not in the registry. `position`: the last row of the follower."""
        (iss, client_id), leader = key, self._leaders[key]
        if self._builder.client(iss, leader) is not None:
            return
        text = explain_missing_leader(client_id, leader, left_out=bool(self._rows_of_leaders[iss, leader]))
        self._builder.leave_out(iss, client_id, printable(text))
        if all(layer.read for layer in self._layers):
            path = self._layers[position[0]].path(position[1])
            self._builder.warnings.append(source_fault(f"{path}.notifier.follows", text))

    def _build_client(
        self, key: ClientKey, path: str, positions: RowPositions, sourced_rows: Sequence[SourcedRow]
    ) -> list[InputIssue]:
        """Add the client of these rows to the builder. Return its errors, which the builder does not keep.

        `path`: the name of the client in errors.
        """
        (iss, client_id), builder = key, self._builder
        if key in self._rows_of_leaders:
            self._rows_of_leaders[key] = sourced_rows
        rows, file_rows = [row for row, _ in sourced_rows], [row for row, is_from_file in sourced_rows if is_from_file]
        file_context = next((self._layers[nth].context for nth, _ in reversed(positions) if self._layers[nth].file), {})
        merged_row = {**merge_rows(rows), "client_id": client_id, "issuer": iss}
        merged_row.pop("aliases", None)
        has_list_rows = len(file_rows) < len(rows)
        algorithms = merged_row.get("id_token_signed_response_alg")
        if isinstance(algorithms, list) and has_list_rows:
            merged_row["id_token_signed_response_alg"] = self._first_signable(algorithms, iss)
        list_only = [name for name in _USUAL_IN_LISTS & merged_row.keys() if not any(name in row for row in file_rows)]
        mistake_count, warning_count = len(builder.mistakes), len(builder.warnings)
        builder.add(merged_row, path, {**file_context}, list_only)
        errors = builder.mistakes[mistake_count:]
        client = builder.client(iss, client_id)
        if not errors and client is not None and is_sent_signatures(client) and has_list_rows:
            supported = self._algorithms_of(iss)
            if client.token.alg not in supported:
                text = explain_unsignable(client.token.alg, iss, supported)
                errors = [InputIssue(f"{path}.id_token_signed_response_alg", text)]
        if errors:
            del builder.mistakes[mistake_count:], builder.warnings[warning_count:]
        return errors

    def _record_list_errors(
        self, key: ClientKey, path: str, positions: RowPositions, errors: Sequence[InputIssue], *, usable: bool
    ) -> None:
        """Record errors of lists, and leave out their client unless it is `usable` without the lists."""
        (iss, client_id), builder = key, self._builder
        # The last row of a list. After a refresh all rows may be in files: then the last of these.
        nth, index = max(positions, key=lambda position: (self._layers[position[0]].file is None, position))
        last_path = self._layers[nth].path(index)
        mistakes = [InputIssue(mistake.path.removeprefix(path).lstrip("."), mistake.text) for mistake in errors]
        client = builder.client(iss, client_id)
        if not usable or client is None or client.logout_uri is None:
            reason = with_source(self._layers[nth], "; ".join(map(str, mistakes)))
            builder.leave_out(iss, client_id, self._texts[reason])
        self._faults += [source_fault(last_path, self._texts[str(mistake)]) for mistake in mistakes]

    def _record_moved(self, key: ClientKey, positions: RowPositions) -> None:
        """Record a client that a list has moved to an origin that no file names."""
        client = self._builder.client(*key)
        reasons = [] if client is None else find_withheld_reasons(client)
        if client is not None and reasons:
            nth, index = [position for position in positions if self._layers[position[0]].file is None][-1]
            layer = self._layers[nth]
            for text in reasons:
                self._builder.beyond.add(client.key, (layer.name, MOVED), InputIssue(layer.path(index), text))

    @cached_property
    def _pairwise_ids(self) -> Mapping[str, Container[str]]:
        """The clients that each list makes pairwise, by the name of the list."""
        return {
            layer.name: {
                client_id_of(row) for row in layer.rows if client_id_of(row) and row.get("subject_type") == "pairwise"
            }
            for layer in self._layers
            if layer.file is None
        }

    def _warn_of_pairwise_by_list(self, key: ClientKey, rows: Sequence[SourcedRow]) -> None:
        """Record a warning if a list makes a client pairwise whose channel, which only a file sets, needs a `sub`."""
        client = self._builder.client(*key)
        if client is None or client.channel is None or not (client.pairwise and client.channel.needs_sub):
            return
        if merge_rows([row for row, is_from_file in rows if is_from_file]).get("subject_type") == "pairwise":
            return
        listed_id = client.issued_id
        names = [name for name, client_ids in self._pairwise_ids.items() if listed_id in client_ids]
        text = (
            f"has subject_type pairwise, so the channel of {client.client_id!r} gets the `sub` of its own entry only:"
            f" events without one become dead letters no_sub; publish it, or set subject_type: public of {listed_id!r}"
            " in a file"
        )
        path = f"client {listed_id!r} of registry source {', '.join(names)}"
        self._builder.warnings.append(source_fault(path, text))

    def _limit_row(self, nth: int, index: int, key: ClientKey) -> Row:
        """Return the row with only the values that its source may set. Record the ignored values."""
        layer, iss = self._layers[nth], key[0]
        row: Row = layer.rows[index]
        if layer.file is not None:
            return row
        if iss not in self._bounds:
            self._bounds[iss] = bounds_of(self._build_context.settings, iss)
        suggest = self._suggestion_count < MAX_SUGGESTIONS
        row, ignored = limit_row(row, self._bounds[iss], layer.authority, suggest=suggest)
        self._suggestion_count += bool(ignored)
        for name, why in ignored.items():
            mistake = source_fault(layer.path(index), f"{name}: {why}")
            self._builder.beyond.add(key, (layer.name, kind_of(name, mistake.text)), mistake)
        return row

    def _first_signable(self, algorithms: Sequence[object], iss: str) -> object:
        """Return the first algorithm that a key of the issuer supports. If there is none, return the first of all."""
        supported = self._algorithms_of(iss)
        default = next(iter(algorithms), None)
        return next((algorithm for algorithm in algorithms if algorithm in supported), default)
