"""Counts messages by client and reason: dead letters, and what waits."""

from dataclasses import dataclass, replace
from typing import Protocol

from notifier.model.moment import earliest, latest, rendered

MOST = 10_000  # groups that are counted apart; anybody can invent client ids in malformed events


@dataclass(slots=True, kw_only=True)
class Group:
    """Messages with one client and one reason. `where` they wait; empty for dead letters, which alone have a `newest`.

    Moments are in epoch seconds, None if unknown. `next`: when the first of the messages that wait is due; `expires`:
    when the first of them is given up. So many have tokens `without_sid`.
    """

    client_id: str
    iss: str
    reason: str
    where: str | None = None
    count: int = 1
    oldest: float | None
    newest: float | None = None
    next: float | None = None
    expires: float | None = None
    without_sid: int = 0

    @property
    def key(self) -> tuple[object, ...]:
        """What all messages of the group have in common."""
        return self.client_id, self.iss, self.where, self.reason

    def add(self, more: "Group") -> None:
        """Count these too."""
        self.count += more.count
        self.oldest = earliest(self.oldest, more.oldest)
        self.newest = latest(self.newest, more.newest)
        self.next = earliest(self.next, more.next)
        self.expires = earliest(self.expires, more.expires)
        self.without_sid += more.without_sid

    def document(self) -> dict[str, object]:
        """The JSON that the API gives."""
        names: dict[str, object] = {"client_id": self.client_id, "iss": self.iss}
        counted = {"reason": self.reason, "count": self.count, "oldest": rendered(self.oldest)}
        if self.where is None:
            return names | counted | {"newest": rendered(self.newest)}
        moments = {"next": rendered(self.next), "expires": rendered(self.expires)}
        return names | {"where": self.where} | counted | moments | {"without_sid": self.without_sid}


class Summary(Protocol):
    """What a list shows of a message."""

    @property
    def id(self) -> str:
        """Its ID."""

    @property
    def iss(self) -> str:
        """Its issuer."""

    @property
    def client_id(self) -> str:
        """Its client."""

    @property
    def reason(self) -> str:
        """Why the message is where it is."""

    def document(self) -> dict[str, object]:
        """The JSON that scripts and the API get."""

    def group(self) -> Group:
        """The group that it makes alone."""


class GroupCounts:
    """Counts by client, reason, and where messages wait."""

    def __init__(self) -> None:
        self._groups: dict[tuple[object, ...], Group] = {}
        self.total = 0

    def add(self, summary: Summary) -> None:
        """Count one more message."""
        self.total += 1
        group = summary.group()
        if group.key not in self._groups and len(self._groups) >= MOST:
            group = replace(group, client_id="_other", iss="")
        known = self._groups.setdefault(group.key, group)
        if known is not group:
            known.add(group)

    def groups(self) -> list[Group]:
        """The groups, the largest first."""
        return sorted(self._groups.values(), key=lambda group: (-group.count, group.client_id, group.iss, group.reason))
