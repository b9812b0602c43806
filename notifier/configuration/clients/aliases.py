"""Assigns each alias to a client, by the order of the configuration alone.

The `client_id` of a client is never another client's alias. If two clients claim one alias, it goes to the client of a
file, otherwise to the source configured first, otherwise to the lowest `client_id`. The order of rows in an answer and
the time of registration do not matter, so that a restarted worker assigns the same aliases.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from notifier.configuration.clients.authority import allowed_aliases
from notifier.configuration.clients.layer import Layer, issuers_of
from notifier.model.client import ClientKey
from notifier.model.errors import InputIssue
from notifier.model.ignored_members import MAX_KEPT_CLIENTS, IssueGroup
from notifier.model.printable import excerpt

_PART = 5000  # rows, after which the thread pauses

_Claims = dict[
    ClientKey, tuple[tuple[bool, int], Sequence[str]]
]  # the rank of the layer with the row (files first), and the aliases


def aliases_of(
    layers: Sequence[Layer], issuers: Sequence[str], pause: Callable[[], None]
) -> tuple[Mapping[str, Mapping[str, str]], IssueGroup]:
    """Return the aliases of each issuer's clients, and the aliases ignored because another client has the name."""
    claims = _claims(layers, issuers, pause)
    own = _own_names(layers, issuers, pause) if claims else {}
    aliases: dict[str, dict[str, str]] = {}
    mistakes: list[InputIssue] = []
    count = 0
    for (iss, client_id), (_, names) in sorted(claims.items(), key=lambda claim: (claim[1][0], claim[0])):
        of_issuer = aliases.setdefault(iss, {})
        for alias in map(str, names):
            owner = alias if alias in own[iss] else of_issuer.setdefault(alias, client_id)
            if owner == client_id:
                continue
            count += 1
            if len(mistakes) < MAX_KEPT_CLIENTS:
                text = f"alias {excerpt(alias)!r} is client {owner!r} already; it is ignored"
                mistakes.append(InputIssue(f"client {client_id!r}", text))
    return aliases, IssueGroup(first=mistakes, count=count)


def _claims(layers: Sequence[Layer], issuers: Sequence[str], pause: Callable[[], None]) -> _Claims:
    """Return the aliases in force for each client: of a file, otherwise of the last source that may set them."""
    claims: _Claims = {}
    for nth, layer in sorted(enumerate(layers), key=lambda numbered: numbered[1].file is not None):
        for index in _parts(layer, pause):
            row = layer.rows[index]
            if not isinstance(row, Mapping) or not isinstance(names := row.get("aliases"), list):
                continue
            allowed = allowed_aliases(layer.authority, names)
            rank = (layer.file is None, nth)
            for iss in issuers_of(layer, row, issuers) if allowed or not names else ():
                if (claim := claims.get(key := (iss, row["client_id"]))) is None or claim[0] != rank:
                    claims[key] = rank, allowed
    return claims


def _own_names(layers: Sequence[Layer], issuers: Sequence[str], pause: Callable[[], None]) -> dict[str, set[str]]:
    """Return the `client_id` of all clients, including unusable clients."""
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
