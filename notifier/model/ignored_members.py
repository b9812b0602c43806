"""Collects members of clients that registry sources may not set: by kind, with the number of clients of each kind.

A list of 100,000 rows may contain such members in each row. So each client refers to shared names of kinds, and the
text is kept only for the first clients of each kind. A source has few kinds, whatever its rows contain.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import field
from itertools import islice
from typing import TypeAlias

from notifier.model.client import ClientKey
from notifier.model.errors import InputIssue
from notifier.model.frozen import frozen

MAX_KEPT_CLIENTS = 100  # clients of a kind that are kept with their text
MAX_NAMED_CLIENTS = 20  # of these in a text
MAX_NAME_CHARACTERS = 100  # characters of each
_SOURCE_SUFFIX = " of registry source "

IgnoredKind: TypeAlias = tuple[str, str]
"""A source, and the member that it may not set."""


@frozen
class IssueGroup:
    """A mistake that many clients have: the first of these clients, and their number."""

    first: Sequence[InputIssue] = ()
    count: int = 0

    @property
    def mistake(self) -> InputIssue:
        """The first mistake, with the names of other clients that have it too."""
        mistake, *others = self.first[: 1 + MAX_NAMED_CLIENTS]
        if not others:
            return mistake
        names = ", ".join(other.path.partition(_SOURCE_SUFFIX)[0][:MAX_NAME_CHARACTERS] for other in others)
        unnamed = self.count - 1 - len(others)
        more = f" and {unnamed:,} more" if unnamed else ""
        same = all(other.text == mistake.text for other in others)
        return InputIssue(
            mistake.path, f"{mistake.text}; {'likewise of' if same else 'more of this kind:'} {names}{more}"
        )


def group_issues(faults: Sequence[InputIssue]) -> Iterator[IssueGroup]:
    """Group faults of clients by source and text. The number of groups is limited, since each text may be different."""
    groups: dict[tuple[str, str], list[InputIssue]] = {}
    rest = 0
    for fault in faults:
        key = fault.path.partition(_SOURCE_SUFFIX)[2], fault.text
        if key in groups or len(groups) < MAX_KEPT_CLIENTS:
            groups.setdefault(key, []).append(fault)
        else:
            rest += 1
    yield from (IssueGroup(first=group[:MAX_KEPT_CLIENTS], count=len(group)) for group in groups.values())
    if rest:
        summary = InputIssue("registry", f"{rest:,} more clients are left out; `notifier clients list` lists all")
        yield IssueGroup(first=[summary], count=rest)


@frozen
class IgnoredMembers:
    """`kinds` of each client, by issuer and `client_id`; `counts` of clients and the `first` texts, by kind."""

    kinds: Mapping[str, Mapping[str, tuple[IgnoredKind, ...]]] = field(default_factory=dict)
    counts: Mapping[IgnoredKind, int] = field(default_factory=dict)
    first: Mapping[IgnoredKind, Mapping[ClientKey, InputIssue]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Return the number of ignored kinds, summed over all clients."""
        return sum(self.counts.values())

    def by_kind(self) -> Iterator[IssueGroup]:
        """Yield each kind, with its first clients and their number."""
        yield from (
            IssueGroup(first=tuple(self.first[kind].values()), count=count) for kind, count in self.counts.items()
        )

    def since(self, old: "IgnoredMembers") -> tuple[Sequence[InputIssue], int]:
        """Return the news since `old`: some of the mistakes with their text, and the number of all."""
        news = [
            mistake
            for kind, first in self.first.items()
            for who, mistake in first.items()
            if old.is_news(kind, who, mistake)
        ]
        grown = sum(max(0, count - old.counts.get(kind, 0)) for kind, count in self.counts.items())
        return news, max(len(news), grown)

    def is_news(self, kind: IgnoredKind, key: ClientKey, mistake: InputIssue) -> bool:
        """Return True if this was not reported before."""
        earlier = self.first.get(kind, {}).get(key)
        return kind not in self.kinds.get(key[0], {}).get(key[1], ()) if earlier is None else earlier != mistake

    def updated(self, part: "IgnoredMembers", changed: Collection[str]) -> "IgnoredMembersBuilder":
        """Return a copy in which the `changed` clients are as in `part`. More mistakes may be added to it."""
        kinds: dict[str, dict[str, tuple[IgnoredKind, ...]]] = {}
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
            first[kind] = dict(islice(still.items(), MAX_KEPT_CLIENTS)) or _find_clients_of_kind(
                kinds, kind, min(count, MAX_KEPT_CLIENTS)
            )
        return IgnoredMembersBuilder(kinds, counts, first)


def _find_clients_of_kind(
    kinds: Mapping[str, Mapping[str, tuple[IgnoredKind, ...]]], kind: IgnoredKind, most: int
) -> dict[ClientKey, InputIssue]:
    """Return further clients of a kind, after all clients with a kept text have left the kind."""
    source, text = kind
    names = ((iss, name) for iss, clients in kinds.items() for name, of_client in clients.items() if kind in of_client)
    return {key: InputIssue(f"client {key[1]!r} of registry source {source}", text) for key in islice(names, most)}


class IgnoredMembersBuilder:
    """Collects the ignored members, client by client."""

    def __init__(
        self,
        kinds: dict[str, dict[str, tuple[IgnoredKind, ...]]] | None = None,
        counts: Counter[IgnoredKind] | None = None,
        first: dict[IgnoredKind, dict[ClientKey, InputIssue]] | None = None,
    ) -> None:
        """Start with the given contents."""
        self._shared: dict[tuple[IgnoredKind, ...], tuple[IgnoredKind, ...]] = {}
        self._kinds = {} if kinds is None else kinds
        self._counts: Counter[IgnoredKind] = Counter() if counts is None else counts
        self._first = {} if first is None else first

    def add(self, key: ClientKey, kind: IgnoredKind, mistake: InputIssue) -> None:
        """Record one mistake. A kind counts once per client."""
        of_issuer = self._kinds.setdefault(key[0], {})
        kinds = of_issuer.get(key[1], ())
        if kind in kinds:
            return
        longer = (*kinds, kind)
        of_issuer[key[1]] = self._shared.setdefault(longer, longer)
        self._counts[kind] += 1
        first = self._first.setdefault(kind, {})
        if len(first) < MAX_KEPT_CLIENTS:
            first[key] = mistake

    def collected(self) -> IgnoredMembers:
        """Return all that was added."""
        return IgnoredMembers(kinds=self._kinds, counts=self._counts, first=self._first)
