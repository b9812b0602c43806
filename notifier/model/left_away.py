"""Collects members of clients that registry sources may not set: by kind, with the number of clients of each kind.

A list of 100,000 rows may go beyond its authority in each row. So a client has only the names of kinds, which all
clients share, and the text is kept for the first clients of each kind. A source has few kinds, whatever its rows say.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import field
from itertools import islice
from typing import TypeAlias

from notifier.model.client import ClientKey
from notifier.model.errors import Mistake
from notifier.model.frozen import frozen

FIRST = 100  # clients of a kind that are kept with their text
NAMED = 20  # of these in a text
NAME = 100  # characters of each
_OF = " of registry source "

LeftAwayKind: TypeAlias = tuple[str, str]
"""A source, and the member that it may not set."""


@frozen
class Alike:
    """A mistake that many clients have: the first of these clients, and their number."""

    first: Sequence[Mistake] = ()
    count: int = 0

    @property
    def mistake(self) -> Mistake:
        """The first mistake, with the names of other clients that have it."""
        mistake, *others = self.first[: 1 + NAMED]
        if not others:
            return mistake
        names = ", ".join(other.path.partition(_OF)[0][:NAME] for other in others)
        unnamed = self.count - 1 - len(others)
        more = f" and {unnamed:,} more" if unnamed else ""
        same = all(other.text == mistake.text for other in others)
        return Mistake(mistake.path, f"{mistake.text}; {'likewise of' if same else 'more of this kind:'} {names}{more}")


def alike(faults: Sequence[Mistake]) -> Iterator[Alike]:
    """Group faults of clients by source and text. A list may make up as many texts as it has clients."""
    groups: dict[tuple[str, str], list[Mistake]] = {}
    rest = 0
    for fault in faults:
        key = fault.path.partition(_OF)[2], fault.text
        if key in groups or len(groups) < FIRST:
            groups.setdefault(key, []).append(fault)
        else:
            rest += 1
    yield from (Alike(first=group[:FIRST], count=len(group)) for group in groups.values())
    if rest:
        summary = Mistake("registry", f"{rest:,} more clients are left out; `notifier clients list` tells all")
        yield Alike(first=[summary], count=rest)


@frozen
class LeftAway:
    """`kinds` of each client, by issuer and `client_id`; `counts` of clients and the `first` texts, by kind."""

    kinds: Mapping[str, Mapping[str, tuple[LeftAwayKind, ...]]] = field(default_factory=dict)
    counts: Mapping[LeftAwayKind, int] = field(default_factory=dict)
    first: Mapping[LeftAwayKind, Mapping[ClientKey, Mistake]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Return the number of ignored kinds, summed over all clients."""
        return sum(self.counts.values())

    def by_kind(self) -> Iterator[Alike]:
        """Each kind."""
        yield from (Alike(first=tuple(self.first[kind].values()), count=count) for kind, count in self.counts.items())

    def since(self, old: "LeftAway") -> tuple[Sequence[Mistake], int]:
        """What is new: some of it with its text, and how much it is in all."""
        news = [
            mistake
            for kind, first in self.first.items()
            for who, mistake in first.items()
            if old.is_news(kind, who, mistake)
        ]
        grown = sum(max(0, count - old.counts.get(kind, 0)) for kind, count in self.counts.items())
        return news, max(len(news), grown)

    def is_news(self, kind: LeftAwayKind, key: ClientKey, mistake: Mistake) -> bool:
        """Return True if this was not reported before."""
        earlier = self.first.get(kind, {}).get(key)
        return kind not in self.kinds.get(key[0], {}).get(key[1], ()) if earlier is None else earlier != mistake

    def updated(self, part: "LeftAway", changed: Collection[str]) -> "Leaving":
        """Return a copy in which the `changed` clients are as in `part`. More may be added to it."""
        kinds: dict[str, dict[str, tuple[LeftAwayKind, ...]]] = {}
        counts = Counter(self.counts)
        for iss in self.kinds.keys() | part.kinds.keys():
            before = self.kinds.get(iss, {})
            kinds[iss] = {client_id: of_client for client_id, of_client in before.items() if client_id not in changed}
            kinds[iss].update(part.kinds.get(iss, {}))
            for client_id in changed:
                counts.subtract(before.get(client_id, ()))
        counts.update(part.counts)
        counts = +counts
        first = {}
        for kind, count in counts.items():
            still = {key: mistake for key, mistake in self.first.get(kind, {}).items() if key[1] not in changed}
            still |= part.first.get(kind, {})
            first[kind] = dict(islice(still.items(), FIRST)) or _of_kind(kinds, kind, min(count, FIRST))
        return Leaving(kinds, counts, first)


def _of_kind(
    kinds: Mapping[str, Mapping[str, tuple[LeftAwayKind, ...]]], kind: LeftAwayKind, most: int
) -> dict[ClientKey, Mistake]:
    """Return the next clients of a kind, once none of those whose texts were kept is of it any more."""
    source, text = kind
    names = ((iss, name) for iss, clients in kinds.items() for name, of_client in clients.items() if kind in of_client)
    return {key: Mistake(f"client {key[1]!r} of registry source {source}", text) for key in islice(names, most)}


class Leaving:
    """Collects what is left away of one client after the other."""

    def __init__(
        self,
        kinds: dict[str, dict[str, tuple[LeftAwayKind, ...]]] | None = None,
        counts: Counter[LeftAwayKind] | None = None,
        first: dict[LeftAwayKind, dict[ClientKey, Mistake]] | None = None,
    ) -> None:
        """Add to what is given."""
        self._shared: dict[tuple[LeftAwayKind, ...], tuple[LeftAwayKind, ...]] = {}
        self._kinds = {} if kinds is None else kinds
        self._counts: Counter[LeftAwayKind] = Counter() if counts is None else counts
        self._first = {} if first is None else first

    def add(self, key: ClientKey, kind: LeftAwayKind, mistake: Mistake) -> None:
        """Note one mistake. A kind that comes twice for a client counts once."""
        of_issuer = self._kinds.setdefault(key[0], {})
        kinds = of_issuer.get(key[1], ())
        if kind in kinds:
            return
        longer = (*kinds, kind)
        of_issuer[key[1]] = self._shared.setdefault(longer, longer)
        self._counts[kind] += 1
        first = self._first.setdefault(kind, {})
        if len(first) < FIRST:
            first[key] = mistake

    def collected(self) -> LeftAway:
        """Return all that was added."""
        return LeftAway(kinds=self._kinds, counts=self._counts, first=self._first)
