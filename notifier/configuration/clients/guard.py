"""Protects a registry from a bad answer of a source. The rules are in docs/configuration.md, "The guard".

If an answer would remove too many clients at once, these clients stay as they are. All other changes, including new
addresses, are applied, so that a correct answer repairs the addresses of a poisoned one. Clients that the source has
listed for less than a day are not protected, because a poisoned answer may have added them. Clients that stay count as
clients of the list: if it has too many with them, nothing of the answer is applied.

Only clients whose rows have changed are built again.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

from notifier.configuration.clients.aliases import complete_registry
from notifier.configuration.clients.client_rows import AnswerResult, Row, SourceAnswer, find_new_clients, row_ids
from notifier.configuration.clients.clients_file import to_layer
from notifier.configuration.clients.followers import connected_ids, find_leaders, leave_out_listed_followers
from notifier.configuration.clients.layer import (
    ROWS_PER_STEP,
    BuildContext,
    BuiltRegistry,
    Layer,
    LayerClients,
    client_id_of,
    keep_lost_rows,
)
from notifier.configuration.clients.layers import LayerMerge
from notifier.configuration.clients.registry_checks import find_excessive_loss, find_lost_clients, find_sudden_changes
from notifier.configuration.clients.remote_rows import ListAmount
from notifier.model.client import Client
from notifier.model.errors import InputIssue, SourceFault
from notifier.model.record import copy_record, record
from notifier.model.registry import Registry

T = TypeVar("T")
_ACCEPT_ADVICE = "to let them go too: notifier reload --accept-loss"


@record
class GuardResult:
    """The registry to put in force, with the source's new layer. `loss`: the accepted loss of clients."""

    built: BuiltRegistry
    layer: Layer
    result: AnswerResult
    loss: str | None = None


def guard_answer(
    build_context: BuildContext,
    old: Registry,
    layers: Sequence[Layer],
    nth: int,
    answer: SourceAnswer | None,
    last: SourceAnswer | None,
    pause: Callable[[], None],
    *,
    accepted: bool,
) -> GuardResult:
    """Decide which changes of an answer of the `nth` source to apply. `last`: the source's previous answer.

    If `answer` is None, the source was dropped, and all its clients are removed. Without a previous answer all changes
    are applied. `accepted`: apply any loss of clients. `pause` lets the event loop run.
    """
    source, issuers = build_context.settings.registry.all_sources[nth], tuple(build_context.settings.issuers)
    layer = to_layer(source, issuers, answer)
    built, both = rebuild_registry(build_context, old, layers, nth, layer, pause), (layers[nth], layer)
    protected = LayerClients(both, issuers, excluded=find_new_clients(last, time.time()))
    loss = find_excessive_loss(old, built.registry, protected)
    if accepted or answer is None or last is None:
        return GuardResult(built=built, layer=layer, result=AnswerResult(answer=answer), loss=loss)
    held_back = None
    if loss is not None:
        losses = find_lost_clients(old, built.registry, protected)
        lost = {client.key for clients in losses for client in clients}
        del built, losses  # before a registry is built again
        rows = keep_lost_rows(layer, layers[nth], lost, issuers)
        if (excess := _find_excess([*rows, *answer.faults], pause)) is not None:
            held_back = f"held back: {loss}; with them {excess}, so nothing of this answer is taken. {_ACCEPT_ADVICE}"
            unchanged = BuiltRegistry(registry=old, mistakes=(), warnings=())
            result = AnswerResult(answer=last, held_back=held_back)
            return GuardResult(built=unchanged, layer=layers[nth], result=result)
        held_back = f"held back: {loss}. All else is taken; {_ACCEPT_ADVICE}"
        answer = copy_record(answer, rows=rows, at=last.at)
        layer = to_layer(source, issuers, answer)
        built = rebuild_registry(build_context, old, layers, nth, layer, pause)
    del protected  # before such a set is made again
    sudden_change = find_sudden_changes(old, built.registry, LayerClients(both, issuers))
    result = AnswerResult(answer=answer, held_back=held_back, sudden_change=sudden_change)
    return GuardResult(built=built, layer=layer, result=result)


def _find_excess(rows: Sequence[Row | InputIssue], pause: Callable[[], None]) -> str | None:
    """Return the bound of a list that these rows and unusable clients exceed; None if they do not."""
    amount = ListAmount()
    try:
        for nth, row in enumerate(rows):
            if nth % ROWS_PER_STEP == ROWS_PER_STEP - 1:
                pause()
            amount.add(row)
    except SourceFault as fault:
        return str(fault)
    return None


def rebuild_registry(
    build_context: BuildContext, old: Registry, layers: Sequence[Layer], nth: int, new: Layer, pause: Callable[[], None]
) -> BuiltRegistry:
    """Return the registry `old`, updated for the replacement of the `nth` layer by `new`.

    Unchanged rows must be the same objects in both layers, because only clients of other rows are built again.
    """
    issuers = tuple(build_context.settings.issuers)
    all_layers = [new if number == nth else layer for number, layer in enumerate(layers)]
    leaders = find_leaders(all_layers, issuers, pause)
    changed = connected_ids(leaders, _find_changed_clients(layers[nth], new))
    new_layers = leave_out_listed_followers(all_layers, leaders, issuers, pause)
    changed_parts = []
    for layer in new_layers:
        pause()
        rows = [row for row in layer.rows if client_id_of(row) in changed]
        faults = [fault for fault in layer.faults if fault.path in changed]
        changed_parts.append(copy_record(layer, rows=rows, faults=faults))
    changed_leaders = {key: leader for key, leader in leaders.items() if key[1] in changed}
    built = LayerMerge(build_context, changed_parts, changed_leaders, pause, refreshed=True).run()
    patched = copy_record(built, registry=_patch_registry(old, built.registry, changed))
    return complete_registry(patched, build_context, new_layers, leaders, pause)


def _find_changed_clients(old: Layer, new: Layer) -> set[str]:
    """Return the `client_id` of all rows and faults that are in one of the layers only."""
    old_ids, changed = row_ids(old.rows), set[str]()
    for row in new.rows:
        if id(row) in old_ids:
            old_ids.discard(id(row))
        else:
            changed.add(client_id_of(row))
    changed |= {client_id_of(row) for row in old.rows if id(row) in old_ids}
    return changed | {fault.path for fault in {*old.faults} ^ {*new.faults}}


def _patch_registry(old: Registry, part: Registry, changed: set[str]) -> Registry:
    """Return the old registry, with the `changed` clients as in `part`."""
    clients: dict[str, Mapping[str, Client]] = {}
    faults: dict[str, Mapping[str, str]] = {}
    refused: dict[str, Mapping[str, str]] = {}
    for iss, new_clients in part.clients.items():
        patched = _replace(old.clients_of(iss), new_clients, changed)
        clients[iss] = MappingProxyType(patched) if isinstance(patched, dict) else patched
        faults[iss] = _replace(old.faults.get(iss, {}), part.faults.get(iss, {}), changed)
        refused[iss] = _replace(old.refused.get(iss, {}), part.refused.get(iss, {}), changed)
    beyond = old.beyond.updated(part.beyond, changed)
    return dataclasses.replace(part, clients=MappingProxyType(clients), faults=faults, refused=refused, beyond=beyond)


def _replace(old: Mapping[str, T], part: Mapping[str, T], changed: set[str]) -> Mapping[str, T]:
    """Return the members of `old` that have not changed, and those of `part`. If all have changed, return `part`."""
    members = {client_id: value for client_id, value in old.items() if client_id not in changed}
    if not members:
        return part
    # To update from a proxy would copy member by member, which blocks other threads for 10 ms at 100,000 clients.
    members.update(part.copy() if isinstance(part, MappingProxyType) else part)
    return members
