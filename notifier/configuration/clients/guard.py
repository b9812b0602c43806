"""Guards a registry: decides what of a source's answer is taken. The rules are in docs/configuration.md, "The guard".

An answer is taken client by client. Only if too many clients would be lost at once do these stay as they are. All else
is taken, addresses too. So an honest list that follows a poisoned one undoes it, and no loss keeps a poisoned one in
force. A client that the source has named for less than a day is not held back: a poisoned list may have brought it.
"""

import time
from collections.abc import Callable, Collection, Sequence

from notifier.configuration.clients.answers import new_at
from notifier.configuration.clients.client_rows import AnswerResult, SourceAnswer
from notifier.configuration.clients.clients_file import answered
from notifier.configuration.clients.layer import ClientsOf, Layer, kept_back
from notifier.configuration.clients.layers import Layered, Needs, lay_again
from notifier.configuration.clients.registry_checks import lost_clients, sudden_changes, too_much_lost
from notifier.model.frozen import frozen, replace
from notifier.model.registry import Registry
from notifier.settings.registry_settings import RegistrySourceSettings


@frozen
class SourceTarget:
    """Where an answer goes: the layers that are in force, and the source that is the `nth` of them."""

    needs: Needs
    registry: Registry
    layers: Sequence[Layer]
    source: RegistrySourceSettings
    nth: int
    pause: Callable[[], None]

    @property
    def layer(self) -> Layer:
        """The layer that the answer replaces."""
        return self.layers[self.nth]

    @property
    def issuers(self) -> Sequence[str]:
        """All configured issuers."""
        return tuple(self.needs.settings.issuers)

    def new_layer(self, answer: SourceAnswer | None) -> Layer:
        """Return the layer that the answer makes."""
        return answered(self.source, self.issuers, answer)

    def lay(self, layer: Layer) -> Layered:
        """Return the registry with this layer."""
        return lay_again(self.needs, self.registry, self.layers, self.nth, layer, self.pause)


@frozen
class Guarded:
    """The registry to put in force. `loss`: the clients whose loss somebody has accepted."""

    laid: Layered
    layer: Layer
    result: AnswerResult
    loss: str | None = None


def guard(target: SourceTarget, answer: SourceAnswer | None, last: SourceAnswer | None, *, accepted: bool) -> Guarded:
    """Judge an answer (None: the source has none any more) after `last`. `accepted`: somebody accepts any loss."""
    layer = target.new_layer(answer)
    laid, both = target.lay(layer), (target.layer, layer)
    guarded = ClientsOf(both, target.issuers, but=new_at(last, time.time()))
    loss = too_much_lost(target.registry, laid.registry, guarded)
    if accepted or answer is None or last is None:
        return Guarded(laid=laid, layer=layer, result=AnswerResult(answer=answer), loss=loss)
    held_back = None
    if loss is not None:
        held_back = f"held back: {loss}. All else is taken; to let them go too: notifier reload --accept-loss"
        rows = _rows_without_loss(target, layer, laid, guarded)
        answer = replace(answer, rows=rows, at=last.at, mark=None)  # not what it has
        laid = target.lay(layer := target.new_layer(answer))
    sudden = sudden_changes(target.registry, laid.registry, ClientsOf(both, target.issuers))
    return Guarded(laid=laid, layer=layer, result=AnswerResult(answer=answer, held_back=held_back, sudden=sudden))


def _rows_without_loss(target: SourceTarget, layer: Layer, laid: Layered, guarded: ClientsOf) -> Sequence[object]:
    lost: Collection[tuple[str, str]] = {
        client.key for clients in lost_clients(target.registry, laid.registry, guarded) for client in clients
    }
    return kept_back(layer, target.layer, lost, target.issuers)
