"""The other names of clients: which client each of them means. The order of the configuration alone decides it.

What is some client's `client_id` is nobody else's alias. Of two clients that want one name, that of a file has it, else
that of the source which is configured first, else the one whose `client_id` comes first. So neither the order of an
answer nor which of them came first counts, and a worker that starts anew means the same clients.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from notifier.configuration.clients.authority import within
from notifier.configuration.clients.layer import Layer, issuers_of
from notifier.model.client import ClientKey
from notifier.model.errors import Mistake
from notifier.model.frozen import frozen
from notifier.model.left_away import FIRST, Alike
from notifier.model.printable import excerpt

_PART = 5000  # rows, after which the thread pauses

_Claims = dict[ClientKey, tuple[tuple[bool, int], Sequence[str]]]  # where it is said, files first; and the aliases


@frozen
class Named:
    """The aliases of each issuer's clients, and what was left away: a name that another client has."""

    aliases: Mapping[str, Mapping[str, str]]
    taken: Alike


def aliases_of(layers: Sequence[Layer], issuers: Sequence[str], pause: Callable[[], None]) -> Named:
    """Say which client of these issuers each alias means."""
    claims = _claims(layers, issuers, pause)
    own = _own_names(layers, issuers, pause) if claims else {}
    aliases: dict[str, dict[str, str]] = {}
    mistakes: list[Mistake] = []
    count = 0
    for (iss, client_id), (_, names) in sorted(claims.items(), key=lambda claim: (claim[1][0], claim[0])):
        known = aliases.setdefault(iss, {})
        for alias in map(str, names):
            owner = alias if alias in own[iss] else known.setdefault(alias, client_id)
            if owner == client_id:
                continue
            count += 1
            if len(mistakes) < FIRST:
                text = f"alias {excerpt(alias)!r} is client {owner!r} already; it is left away"
                mistakes.append(Mistake(f"client {client_id!r}", text))
    return Named(aliases=aliases, taken=Alike(first=mistakes, count=count))


def _claims(layers: Sequence[Layer], issuers: Sequence[str], pause: Callable[[], None]) -> _Claims:
    """What is in force of each client: what a file says, else what the last source says that may."""
    claims: _Claims = {}
    for nth, layer in sorted(enumerate(layers), key=lambda numbered: numbered[1].file is not None):
        for index in _parts(layer, pause):
            row = layer.rows[index]
            if not isinstance(row, Mapping) or not isinstance(names := row.get("aliases"), list):
                continue
            allowed = within(layer.authority, names)
            place = (layer.file is None, nth)
            for iss in issuers_of(layer, row, issuers) if allowed or not names else ():
                if (known := claims.get(key := (iss, row["client_id"]))) is None or known[0] != place:
                    claims[key] = place, allowed
    return claims


def _own_names(layers: Sequence[Layer], issuers: Sequence[str], pause: Callable[[], None]) -> dict[str, set[str]]:
    """The `client_id` of all clients, those among them that cannot be used."""
    own: dict[str, set[str]] = {iss: set() for iss in issuers}
    for layer in layers:
        for index in _parts(layer, pause):
            row = layer.rows[index]
            for iss in issuers_of(layer, row, issuers):
                own[iss].add(row["client_id"])
        for fault in layer.faults:
            for iss in layer.left_out_at(fault, issuers):
                own[iss].add(fault.path)
    return own


def _parts(layer: Layer, pause: Callable[[], None]) -> Iterator[int]:
    for index in range(len(layer.rows)):
        if index % _PART == 0:
            pause()
        yield index
