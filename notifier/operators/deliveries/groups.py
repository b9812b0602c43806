"""Counts dead letters or pending deliveries by client and reason."""

from dataclasses import dataclass, replace
from typing import Protocol

from notifier.model.moment import earliest, format_optional_moment, latest
from notifier.model.shared_resources import shared_bound

MAX_GROUPS = shared_bound(10_000)  # groups that are counted separately; malformed events can hold any client IDs


@dataclass(slots=True, kw_only=True)
class Group:
    """The number of messages of one client with one reason, and their times.

    Times are in epoch seconds; None if unknown. Pending deliveries have `where` (delayed or parked), `next` (when the
    first is due), `expires` (when the first is given up) and `without_sid` (the number of tokens without `sid`). Dead
    letters have `newest` instead.
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
        """Return the values that all messages of the group share."""
        return self.client_id, self.iss, self.where, self.reason

    def add(self, other: "Group") -> None:
        """Add the counts and times of another group."""
        self.count += other.count
        self.oldest = earliest(self.oldest, other.oldest)
        self.newest = latest(self.newest, other.newest)
        self.next = earliest(self.next, other.next)
        self.expires = earliest(self.expires, other.expires)
        self.without_sid += other.without_sid

    def document(self) -> dict[str, object]:
        """Return the JSON for the API."""
        client: dict[str, object] = {"client_id": self.client_id, "iss": self.iss}
        counts = {"reason": self.reason, "count": self.count, "oldest": format_optional_moment(self.oldest)}
        if self.where is None:
            return client | counts | {"newest": format_optional_moment(self.newest)}
        moments = {"next": format_optional_moment(self.next), "expires": format_optional_moment(self.expires)}
        return client | {"where": self.where} | counts | moments | {"without_sid": self.without_sid}


class Summary(Protocol):
    """The port through which lists read a message."""

    @property
    def id(self) -> str:
        """Return the message ID."""

    @property
    def iss(self) -> str:
        """Return the issuer."""

    @property
    def client_id(self) -> str:
        """Return the client ID; empty if unknown."""

    @property
    def reason(self) -> str:
        """Return the reason for the message's state."""

    def document(self) -> dict[str, object]:
        """Return the JSON for scripts and the API."""

    def group(self) -> Group:
        """Return a group that contains only this message."""


class GroupCounts:
    """Counts messages by client and reason; pending deliveries also by `where`."""

    def __init__(self) -> None:
        self._groups: dict[tuple[object, ...], Group] = {}
        self.total = 0

    def add(self, summary: Summary) -> None:
        """Count one more message. Beyond MAX_GROUPS groups, a message of a new group counts for the client `_other`."""
        self.total += 1
        group = summary.group()
        if group.key not in self._groups and len(self._groups) >= MAX_GROUPS:
            group = replace(group, client_id="_other", iss="")
        if group.key in self._groups:
            self._groups[group.key].add(group)
        else:
            self._groups[group.key] = group

    def groups(self) -> list[Group]:
        """Return the groups, the largest first."""
        return sorted(self._groups.values(), key=lambda group: (-group.count, group.client_id, group.iss, group.reason))
