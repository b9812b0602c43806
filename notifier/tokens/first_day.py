"""Judges a key's first day: receivers that keep the issuer's JWK Set for hours refuse the signatures of a new key.

The exact time of its first publication is unknown. It is not before the key's file was written, or the signer made the
key. A worker that reads the set reports since when the key is in it. Moments are seconds since the epoch.
"""

from collections.abc import Iterable, Mapping

from notifier.model.durations import DAY_SECONDS
from notifier.model.frozen import frozen
from notifier.model.moment import format_moment_for_people, latest


@frozen
class SeenKey:
    """A key that a worker has found in its issuer's JWK Set since a moment.

    `appeared`: the worker had read the set without the key before, so `since` is when it was published.
    """

    iss: str
    kid: str
    since: float
    appeared: bool = False


Seen = Mapping[tuple[str, str], SeenKey]
"""By issuer and `kid`."""


def merge_seen_keys(seen_keys: Iterable[SeenKey]) -> dict[tuple[str, str], SeenKey]:
    """Return the best observation of each key from those of all workers.

    One with `appeared` is preferred, and of several the latest. Without any it is the earliest observation.
    """
    best: dict[tuple[str, str], SeenKey] = {}
    for seen in seen_keys:
        key = (seen.iss, seen.kid)
        best[key] = max(best.get(key, seen), seen, key=_rank)
    return best


def _rank(seen: SeenKey) -> tuple[bool, float]:
    return seen.appeared, seen.since if seen.appeared else -seen.since


def earliest_publication(made_at: float | None, seen: SeenKey | None) -> float | None:
    """Return the earliest time at which a key made at `made_at` (None: unknown) can have been published; or None."""
    return latest(made_at, seen.since if seen is not None and seen.appeared else None)


def describe_first_day(made_at: float | None, seen: SeenKey | None, now: float) -> str:
    """Return since when the key is published, as far as that is known, and when its first day is over."""
    began = earliest_publication(made_at, seen)
    if seen is not None and seen.appeared:
        since = f"since {format_moment_for_people(seen.since)}"
    elif seen is not None:
        since = f"since {format_moment_for_people(seen.since)} or longer"
        since += "" if began is None else f" (made {format_moment_for_people(began)})"
    elif began is not None:
        since = f"since {format_moment_for_people(began)} at the earliest, when it was made"
    else:
        return "nobody saw since when"
    return f"{since}; {_over(began, seen, now)}"


def _over(began: float | None, seen: SeenKey | None, now: float) -> str:
    if began is not None and now < began + DAY_SECONDS:
        return f"its first day lasts until {format_moment_for_people(began + DAY_SECONDS)}"
    if seen is None:
        return "its first day is over, if it was there then"
    if now < seen.since + DAY_SECONDS:
        return f"its first day is over by {format_moment_for_people(seen.since + DAY_SECONDS)}"
    return "its first day is over"
