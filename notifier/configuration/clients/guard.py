"""Protects a registry from a bad answer of a source. The rules are in docs/configuration.md, "The guard".

If an answer would remove too many clients at once, these clients stay as they are; all other changes, including new
addresses, are applied. So a correct list that follows a poisoned one repairs it, whatever it removes. Clients that the
source has listed for less than a day are not protected: a poisoned list may have added them.

Only clients whose rows have changed are built again.
"""

import dataclasses
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType

from notifier.configuration.clients.client_rows import AnswerResult, SourceAnswer, identities, new_at
from notifier.configuration.clients.clients_file import answered
from notifier.configuration.clients.layer import ClientsOf, Layer, kept_back
from notifier.configuration.clients.layers import Layered, Laying, Needs, client_id_of, completed
from notifier.configuration.clients.registry_checks import (
    lost_clients,
    sudden_changes,
    too_much_lost,
)
from notifier.model.client import Client
from notifier.model.frozen import frozen, replace
from notifier.model.registry import Registry
from notifier.settings.registry_settings import RegistrySourceSettings


@frozen
class SourceTarget:
    """The destination of an answer: the layers in force, and the source, whose layer is the `nth`."""

    needs: Needs
    registry: Registry
    layers: Sequence[Layer]
    source: RegistrySourceSettings
    nth: int
    pause: Callable[[], None]

    @property
    def layer(self) -> Layer:
        """The layer to replace."""
        return self.layers[self.nth]

    @property
    def issuers(self) -> Sequence[str]:
        """All configured issuers."""
        return tuple(self.needs.settings.issuers)

    def new_layer(self, answer: SourceAnswer | None) -> Layer:
        """Return the layer of this answer."""
        return answered(self.source, self.issuers, answer)

    def lay(self, layer: Layer) -> Layered:
        """Return the registry with this layer."""
        return lay_again(self.needs, self.registry, self.layers, self.nth, layer, self.pause)


@frozen
class GuardedAnswer:
    """The registry to put in force. `loss`: the accepted loss of clients."""

    laid: Layered
    layer: Layer
    result: AnswerResult
    loss: str | None = None


def guard(
    target: SourceTarget, answer: SourceAnswer | None, last: SourceAnswer | None, *, accepted: bool
) -> GuardedAnswer:
    """Decide which changes of an answer (None: the source was dropped) to apply. `accepted`: any loss is accepted."""
    layer = target.new_layer(answer)
    laid, both = target.lay(layer), (target.layer, layer)
    guarded = ClientsOf(both, target.issuers, but=new_at(last, time.time()))
    loss = too_much_lost(target.registry, laid.registry, guarded)
    if accepted or answer is None or last is None:
        return GuardedAnswer(laid=laid, layer=layer, result=AnswerResult(answer=answer), loss=loss)
    held_back = None
    if loss is not None:
        held_back = f"held back: {loss}. All else is taken; to let them go too: notifier reload --accept-loss"
        rows = _rows_without_loss(target, layer, laid, guarded)
        answer = replace(answer, rows=rows, at=last.at, mark=None)  # it differs from the source's state
        laid = target.lay(layer := target.new_layer(answer))
    sudden = sudden_changes(target.registry, laid.registry, ClientsOf(both, target.issuers))
    return GuardedAnswer(laid=laid, layer=layer, result=AnswerResult(answer=answer, held_back=held_back, sudden=sudden))


def _rows_without_loss(target: SourceTarget, layer: Layer, laid: Layered, guarded: ClientsOf) -> Sequence[object]:
    lost: Collection[tuple[str, str]] = {
        client.key for clients in lost_clients(target.registry, laid.registry, guarded) for client in clients
    }
    return kept_back(layer, target.layer, lost, target.issuers)


def lay_again(
    needs: Needs, old: Registry, layers: Sequence[Layer], nth: int, new: Layer, pause: Callable[[], None]
) -> Layered:
    """Update the registry `old` where the layer `new` differs from the replaced layer.

    Unchanged rows must be the same objects: their clients are not built again.
    """
    changed = _changed(layers[nth], new)
    parts, now = [], [new if number == nth else layer for number, layer in enumerate(layers)]
    for source in now:
        pause()
        rows = [row for row in source.rows if client_id_of(row) in changed]
        faults = [fault for fault in source.faults if fault.path in changed]
        parts.append(replace(source, rows=rows, faults=faults))
    laid = Laying(needs, parts, pause, refreshed=True).layered()
    return completed(replace(laid, registry=_patched(old, laid.registry, changed)), needs, now, pause)


def _changed(old: Layer, new: Layer) -> set[str]:
    """Return the `client_id` of all rows and faults that are in one of the layers only."""
    before, after = identities(old.rows), identities(new.rows)
    changed = {client_id_of(row) for row in new.rows if id(row) not in before}
    changed |= {client_id_of(row) for row in old.rows if id(row) not in after}
    return changed | {fault.path for fault in {*old.faults} ^ {*new.faults}}


def _copied(clients: Mapping[str, Client]) -> dict[str, Client]:
    """Return a copy. `dict(proxy)` would copy member by member, in one step of 10 ms for 100,000."""
    return clients.copy() if isinstance(clients, MappingProxyType) else dict(clients)


def _patched(old: Registry, part: Registry, changed: set[str]) -> Registry:
    """Return the old registry, with the changed clients as in `part`."""
    clients: dict[str, Mapping[str, Client]] = {}
    faults: dict[str, Mapping[str, str]] = {}
    refused: dict[str, Mapping[str, str]] = {}
    for iss, of_issuer in part.clients.items():
        copied = _copied(old.clients_of(iss))
        for client_id in changed:
            copied.pop(client_id, None)
        copied.update(_copied(of_issuer))
        clients[iss] = MappingProxyType(copied)
        faults[iss] = _again(old.faults.get(iss, {}), part.faults.get(iss, {}), changed)
        refused[iss] = _again(old.refused.get(iss, {}), part.refused.get(iss, {}), changed)
    beyond = old.beyond.updated(part.beyond, changed).collected()
    return dataclasses.replace(part, clients=MappingProxyType(clients), faults=faults, refused=refused, beyond=beyond)


def _again(old: Mapping[str, str], part: Mapping[str, str], changed: set[str]) -> Mapping[str, str]:
    return {key: why for key, why in old.items() if key not in changed} | dict(part)
