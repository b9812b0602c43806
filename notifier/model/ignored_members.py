"""Collects the client members that registry sources may not set, or set too high, by source and member (a *kind*).

A list of 100,000 rows may contain such members in each row. So each kind has the number of its clients, and the texts
of the first clients only.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeAlias

from notifier.model.client import ClientKey
from notifier.model.errors import InputIssue
from notifier.model.record import record

MAX_KEPT_CLIENTS = 100  # clients of a kind whose text is kept
MAX_NAMED_CLIENTS = 20  # other clients that a text names
MAX_NAME_CHARACTERS = 100  # of each named client
_SOURCE_SUFFIX = " of registry source "

IgnoredKind: TypeAlias = tuple[str, str]
"""A source, and the member that it may not set."""


@record
class IssueGroup:
    """A mistake that several clients have: the mistakes of the first clients, and the number of all."""

    first: Sequence[InputIssue] = ()
    count: int = 0

    @property
    def lines(self) -> Sequence[InputIssue]:
        """The first mistakes, each to report separately. Equal ones are one, with the names of the other clients."""
        return [self.mistake] if self._are_equal else self.first

    @property
    def unlisted_count(self) -> int:
        """The number of mistakes beyond `lines`."""
        return 0 if self._are_equal else self.count - len(self.first)

    @property
    def _are_equal(self) -> bool:
        return len({mistake.text for mistake in self.first}) == 1

    @property
    def mistake(self) -> InputIssue:
        """The first mistake, with the names of other clients that have it too."""
        mistake, *others = self.first[: 1 + MAX_NAMED_CLIENTS]
        if not others:
            return mistake
        names = ", ".join(other.path.partition(_SOURCE_SUFFIX)[0][:MAX_NAME_CHARACTERS] for other in others)
        unnamed_count = self.count - 1 - len(others)
        more = f" and {unnamed_count:,} more" if unnamed_count else ""
        have_same_text = all(other.text == mistake.text for other in others)
        relation = "likewise of" if have_same_text else "more of this kind:"
        return InputIssue(mistake.path, f"{mistake.text}; {relation} {names}{more}")


def group_issues(issues: Sequence[InputIssue]) -> Iterator[IssueGroup]:
    """Yield the mistakes of clients grouped by source and text: at most 100 groups, and a count of the others."""
    groups: dict[tuple[str, str], list[InputIssue]] = {}
    ungrouped_count = 0
    for issue in issues:
        key = issue.path.partition(_SOURCE_SUFFIX)[2], issue.text
        if key in groups or len(groups) < MAX_KEPT_CLIENTS:
            groups.setdefault(key, []).append(issue)
        else:
            ungrouped_count += 1
    for group in groups.values():
        yield IssueGroup(first=group[:MAX_KEPT_CLIENTS], count=len(group))
    if ungrouped_count:
        text = f"{ungrouped_count:,} more clients are left out; `notifier clients list` lists all"
        yield IssueGroup(first=[InputIssue("registry", text)], count=ungrouped_count)


@dataclass(slots=True)
class IgnoredMembers:
    """By kind, the clients that have it, each with its mistake, or None beyond the first 100 clients.

    Only `add` changes it, before a registry refers to it.
    """

    clients: dict[IgnoredKind, dict[ClientKey, InputIssue | None]] = field(default_factory=dict)

    def add(self, key: ClientKey, kind: IgnoredKind, mistake: InputIssue | None) -> None:
        """Record that the client has a mistake of this kind. Several of one kind count once."""
        clients = self.clients.setdefault(kind, {})
        clients.setdefault(key, mistake if len(clients) < MAX_KEPT_CLIENTS else None)

    @property
    def total(self) -> int:
        """The number of kinds of each client, summed over all clients."""
        return sum(map(len, self.clients.values()))

    def by_kind(self) -> Iterator[IssueGroup]:
        """Yield a group for each kind, with the mistakes of its first clients and the number of clients."""
        for kind, clients in self.clients.items():
            first = islice(clients.items(), MAX_KEPT_CLIENTS)
            yield IssueGroup(first=[_to_issue(kind, *each) for each in first], count=len(clients))

    def since(self, old: "IgnoredMembers") -> Iterator[IssueGroup]:
        """Yield a group for each kind, with the clients of which `old` does not have a mistake of this kind."""
        for kind, clients in self.clients.items():
            old_clients = old.clients.get(kind, {})
            new_keys = [key for key in clients if key not in old_clients]
            if new_keys:
                first = [_to_issue(kind, key, clients[key]) for key in new_keys[:MAX_KEPT_CLIENTS]]
                yield IssueGroup(first=first, count=len(new_keys))

    def updated(self, part: "IgnoredMembers", changed: Collection[str]) -> "IgnoredMembers":
        """Return a copy in which the clients of `part` replace the clients whose `client_id` is in `changed`."""
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
