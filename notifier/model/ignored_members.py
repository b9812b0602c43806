"""Collects members of clients that registry sources may not set: by kind, with the number of clients of each kind.

A list of 100,000 rows may contain such members in each row. So the text is kept only for the first clients of each
kind. A source has few kinds, whatever its rows contain.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
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


@dataclass(slots=True)
class IgnoredMembers:
    """The clients of each kind. Only `add` changes it, before a registry refers to it.

    The text is kept for the first clients of a kind, and is None for others.
    """

    clients: dict[IgnoredKind, dict[ClientKey, InputIssue | None]] = field(default_factory=dict)

    def add(self, key: ClientKey, kind: IgnoredKind, mistake: InputIssue | None) -> None:
        """Record one mistake. A kind counts once per client."""
        clients = self.clients.setdefault(kind, {})
        clients.setdefault(key, mistake if len(clients) < MAX_KEPT_CLIENTS else None)

    @property
    def total(self) -> int:
        """Return the number of ignored kinds, summed over all clients."""
        return sum(map(len, self.clients.values()))

    def by_kind(self) -> Iterator[IssueGroup]:
        """Yield each kind, with its first clients and their number."""
        for kind, clients in self.clients.items():
            first = islice(clients.items(), MAX_KEPT_CLIENTS)
            yield IssueGroup(first=[_to_issue(kind, *each) for each in first], count=len(clients))

    def since(self, old: "IgnoredMembers") -> tuple[Sequence[InputIssue], int]:
        """Return the news since `old`: some of the mistakes, and the number of all."""
        news: list[InputIssue] = []
        count = 0
        for kind, clients in self.clients.items():
            known = old.clients.get(kind, {})
            new = [key for key in clients if key not in known]
            news += [_to_issue(kind, key, clients[key]) for key in new[:MAX_KEPT_CLIENTS]]
            count += len(new)
        return news, count

    def updated(self, part: "IgnoredMembers", changed: Collection[str]) -> "IgnoredMembers":
        """Return a copy in which the `changed` clients are as in `part`."""
        copy = IgnoredMembers()
        for members, left_out in ((self, changed), (part, ())):
            for kind, clients in members.clients.items():
                for key, mistake in clients.items():
                    if key[1] not in left_out:
                        copy.add(key, kind, mistake)
        return copy


def _to_issue(kind: IgnoredKind, key: ClientKey, mistake: InputIssue | None) -> InputIssue:
    source, text = kind
    return mistake or InputIssue(f"client {key[1]!r}{_SOURCE_SUFFIX}{source}", text)
