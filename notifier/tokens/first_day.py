"""Decides whether a signing key is in its first day after publication.

A receiver that caches the issuer's JWK Set for hours refuses signatures of a key that is newer than its copy. The exact
time of the publication is unknown. It is not before the key was made. A worker that reads the set reports since when
it has seen the key there. Times are epoch seconds.
"""

from collections.abc import Iterable, Mapping

from notifier.model.durations import DAY_SECONDS
from notifier.model.moment import format_moment_for_people, latest
from notifier.model.record import record


@record
class SeenKey:
    """A worker's observation of a key in its issuer's JWK Set. `since`: when the worker first saw the key there.

    `appeared`: the worker has read the set without the key before, so `since` is the time of the publication.
    """

    iss: str
    kid: str
    since: float
    appeared: bool = False


Seen = Mapping[tuple[str, str], SeenKey]
"""By issuer and `kid`."""


def merge_seen_keys(seen_keys: Iterable[SeenKey]) -> dict[tuple[str, str], SeenKey]:
    """Return for each key the observation closest to its publication, from the observations of all workers.

    That is the latest observation with `appeared`. If there is none, it is the earliest observation.
    """
    closest: dict[tuple[str, str], SeenKey] = {}
    for seen in seen_keys:
        key = (seen.iss, seen.kid)
        closest[key] = max(closest.get(key, seen), seen, key=_rank)
    return closest


def _rank(seen: SeenKey) -> tuple[bool, float]:
    return seen.appeared, seen.since if seen.appeared else -seen.since


def earliest_publication(made_at: float | None, seen: SeenKey | None) -> float | None:
    """Return the earliest possible time of a key's publication; None if nothing is known about it."""
    appeared_at = seen.since if seen is not None and seen.appeared else None
    return latest(made_at, appeared_at)  # the key was published after both


def describe_first_day(made_at: float | None, seen: SeenKey | None, now: float) -> str:
    """Return a text that states since when the key is published, and when its first day ends."""
    published_at = earliest_publication(made_at, seen)
    if seen is not None and seen.appeared:
        since = f"since {format_moment_for_people(seen.since)}"
    elif seen is not None:
        since = f"since {format_moment_for_people(seen.since)} or longer"
        since += "" if published_at is None else f" (made {format_moment_for_people(published_at)})"
    elif published_at is not None:
        since = f"since {format_moment_for_people(published_at)} at the earliest, when it was made"
    else:
        return "nobody saw since when"
    return f"{since}; {_describe_end(published_at, seen, now)}"


def _describe_end(published_at: float | None, seen: SeenKey | None, now: float) -> str:
    if published_at is not None and now < published_at + DAY_SECONDS:
        return f"its first day lasts until {format_moment_for_people(published_at + DAY_SECONDS)}"
    if seen is None:
        return "its first day is over, if it was there then"
    if now < seen.since + DAY_SECONDS:
        return f"its first day is over by {format_moment_for_people(seen.since + DAY_SECONDS)}"
    return "its first day is over"
