"""The known name that somebody most likely meant by one that nobody knows: "did you mean …?".

A registry may have 100,000 clients, so a search looks at a bounded number of names, and costs a few milliseconds.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice

from notifier.model.frozen import frozen
from notifier.model.outcome import Cause, DeadReason
from notifier.model.registry import Issuer, Registry

NOBODY_KNOWS = frozenset(map(str, (DeadReason.UNKNOWN_CLIENT, DeadReason.UNKNOWN_ISSUER, Cause.UNKNOWN)))
LOOKED_AT = 5_000  # names of one search
COMPARED = 100  # of them by difflib, which takes up to 50 µs for each
ALIKE = 0.75  # difflib's ratio from which a name is near: two letters of four are swapped


@frozen
class Hint:
    """A sentence with the nearest name. `whose`: the issuer that it names, or whose client it names."""

    text: str
    whose: Issuer

    def concerns(self, publisher: str | None) -> bool:
        """True if this publisher may speak for the issuer, and so may hear of it."""
        return self.whose.publishers is None or publisher in self.whose.publishers


def near_either(iss: str, client_id: str, registry: Registry, *, known: str) -> Hint | None:
    """What a name that nobody knew may mean: an issuer or a client. `known` is said where it is registered by now."""
    issuer = registry.issuers.get(iss)
    if issuer is None:
        return near_issuer(iss, registry)
    if client_id and client_id in registry.clients_of(iss):
        return Hint(text=known, whose=issuer)
    return near_client(iss, client_id, registry)


def near_issuer(iss: str, registry: Registry) -> Hint | None:
    """The configured issuer that an unknown one may mean."""
    near = nearest(iss, registry.issuers)
    return None if near is None else Hint(text=did_you_mean(near, iss), whose=registry.issuers[near])


def near_client(iss: str, client_id: str, registry: Registry) -> Hint | None:
    """The client that an unknown one may mean: that name at another issuer, or a like name at this one."""
    for other in islice(registry.issuers, LOOKED_AT):
        if client_id in registry.clients_of(other):
            return Hint(text=f"there is one of that name at the issuer {other}", whose=registry.issuers[other])
    near = nearest(client_id, registry.clients_of(iss))
    issuer = registry.issuers.get(iss)
    return None if near is None or issuer is None else Hint(text=did_you_mean(near, client_id), whose=issuer)


def did_you_mean(near: str, name: str) -> str:
    """The question, with the difference where that is hard to see."""
    how = ""
    if f"{near}/" == name:
        how = ", without the slash at the end"
    elif f"{name}/" == near:
        how = ", with a slash at the end"
    return f"did you mean {near}{how}?"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like this one; None if none is."""
    plain = _plain(name)
    alike: dict[str, str] = {}
    for other in islice(known, LOOKED_AT):
        if (spelling := _plain(other)) == plain:
            return other
        if len(alike) < COMPARED and abs(len(spelling) - len(plain)) <= 2 + len(plain) // 8:
            alike.setdefault(spelling, other)
    near = get_close_matches(plain, alike, n=1, cutoff=ALIKE)
    return alike[near[0]] if near else None


def _plain(name: str) -> str:
    """Without what people get wrong most: case, blanks around, the slash at the end, the scheme."""
    return name.strip().casefold().rstrip("/").removeprefix("https://").removeprefix("http://")
