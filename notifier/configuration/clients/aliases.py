"""Assigns each alias to a client. An alias is another name of a client, by which events may identify it.

The `client_id` of a client is never another client's alias. If two clients claim one alias, it goes to the client of a
file. Without a file it goes to the client of the source configured first, and among these to the lowest `client_id`.
The order of rows in an answer has no effect, so that a restarted worker assigns the same aliases.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from notifier.configuration.clients.authority import allowed_aliases
from notifier.configuration.clients.followers import Leaders, group_followers
from notifier.configuration.clients.layer import (
    BuildContext,
    BuiltRegistry,
    Layer,
    find_incomplete_issuers,
    issuers_of,
)
from notifier.model.client import ClientKey
from notifier.model.errors import InputIssue
from notifier.model.ignored_members import MAX_KEPT_CLIENTS, IssueGroup
from notifier.model.printable import excerpt
from notifier.model.record import copy_record

_ROWS_PER_STEP = 5000  # after which the thread pauses

_Rank = tuple[bool, int]
_Claims = dict[ClientKey, tuple[_Rank, Sequence[str]]]
"""The aliases of each client, with the rank of their layer: False for a file, and the layer's index."""


def complete_registry(
    built: BuiltRegistry,
    build_context: BuildContext,
    layers: Sequence[Layer],
    leaders: Leaders,
    pause: Callable[[], None],
) -> BuiltRegistry:
    """Add to a built registry what is computed from all layers: aliases, followers, and incomplete issuers."""
    issuers = tuple(build_context.settings.issuers)
    aliases, taken = aliases_of(layers, leaders, issuers, pause)
    registry = dataclasses.replace(
        built.registry, aliases=aliases, taken_aliases=taken, followers=group_followers(leaders),
        incomplete=find_incomplete_issuers(layers, issuers, pause),
    )  # fmt: skip
    return copy_record(built, registry=registry)


def aliases_of(
    layers: Sequence[Layer], leaders: Leaders, issuers: Sequence[str], pause: Callable[[], None]
) -> tuple[Mapping[str, Mapping[str, str]], IssueGroup]:
    """Return the `client_id` of each alias, by issuer, and the aliases ignored because another client has the name."""
    claims = _collect_claims(layers, issuers, pause)
    client_ids = _collect_client_ids(layers, leaders, issuers, pause) if claims else {}
    aliases: dict[str, dict[str, str]] = {}
    mistakes: list[InputIssue] = []
    ignored_count = 0
    ranked = sorted((rank, key, names) for key, (rank, names) in claims.items())
    for _, (iss, client_id), names in ranked:
        issuer_aliases = aliases.setdefault(iss, {})
        for alias in map(str, names):
            owner = alias if alias in client_ids[iss] else issuer_aliases.setdefault(alias, client_id)
            if owner == client_id:
                continue
            ignored_count += 1
            if len(mistakes) < MAX_KEPT_CLIENTS:
                text = f"alias {excerpt(alias)!r} is client {owner!r} already; it is ignored"
                mistakes.append(InputIssue(f"client {client_id!r}", text))
    return aliases, IssueGroup(first=mistakes, count=ignored_count)


def _collect_claims(layers: Sequence[Layer], issuers: Sequence[str], pause: Callable[[], None]) -> _Claims:
    """Return the aliases that apply to each client: of the last file, otherwise of the last source that may set any."""
    claims: _Claims = {}
    for nth, layer in sorted(enumerate(layers), key=lambda numbered: numbered[1].file is not None):
        rank = (layer.file is None, nth)
        for row in _iterate_rows(layer, pause):
            names = row.get("aliases") if isinstance(row, Mapping) else None
            if not isinstance(names, list):
                continue
            allowed = allowed_aliases(layer.authority, names)
            if names and not allowed:
                continue
            for iss in issuers_of(layer, row, issuers):
                key = (iss, row["client_id"])
                if key not in claims or claims[key][0] != rank:  # of two rows in a layer, the first counts
                    claims[key] = rank, allowed
    return claims


def _collect_client_ids(
    layers: Sequence[Layer], leaders: Leaders, issuers: Sequence[str], pause: Callable[[], None]
) -> dict[str, set[str]]:
    """Return the `client_id` of all clients by issuer, including unusable clients and unknown leaders of followers."""
    client_ids: dict[str, set[str]] = {iss: set() for iss in issuers}
    for (iss, _), leader in leaders.items():
        client_ids[iss].add(leader)
    for layer in layers:
        for row in _iterate_rows(layer, pause):
            for iss in issuers_of(layer, row, issuers):
                client_ids[iss].add(row["client_id"])
        for fault in layer.faults:
            for iss in layer.left_out_at(fault, issuers):
                client_ids[iss].add(fault.path)
    return client_ids


def _iterate_rows(layer: Layer, pause: Callable[[], None]) -> Iterator[Any]:
    for index, row in enumerate(layer.rows):
        if index % _ROWS_PER_STEP == 0:
            pause()
        yield row
