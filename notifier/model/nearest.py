"""Finds the known name that an unknown name most likely means: "did you mean …?".

A registry may have 100,000 clients, so a search examines a bounded number of names and takes a few milliseconds.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice

from notifier.model.frozen import frozen
from notifier.model.printable import stray_character
from notifier.model.registry import Issuer, Registry

MAX_SEARCHED_NAMES = 5_000  # names of one search
MAX_COMPARED_NAMES = 100  # of them by difflib, which takes up to 50 µs for each
MIN_SIMILARITY = 0.75  # difflib's ratio from which a name is near: two of four letters may be swapped


@frozen
class Hint:
    """A sentence with the nearest name. `issuer`: the named issuer, or the issuer of the named client."""

    text: str
    issuer: Issuer

    def concerns(self, publisher: str | None) -> bool:
        """True if this publisher may publish for the issuer, and so may be shown its names."""
        return self.issuer.publishers is None or publisher in self.issuer.publishers


def suggest_issuer(iss: str, registry: Registry) -> Hint | None:
    """Return the configured issuer that an unknown issuer may mean."""
    near = find_nearest_name(iss, registry.issuers)
    return None if near is None else Hint(text=format_suggestion(near, iss), issuer=registry.issuers[near])


def suggest_client(iss: str, client_id: str, registry: Registry) -> Hint | None:
    """Return the client that an unknown name may mean: that name at another issuer, or a similar name at this one.

    A client that is registered here without an address gets no suggestion.
    """
    if client_id in registry.clients_of(iss):
        return None
    for other_iss in islice(registry.issuers, MAX_SEARCHED_NAMES):
        if client_id in registry.clients_of(other_iss):
            return Hint(text=f"there is one of that name at the issuer {other_iss}", issuer=registry.issuers[other_iss])
    near = find_nearest_name(client_id, registry.clients_of(iss))
    issuer = registry.issuers.get(iss)
    return None if near is None or issuer is None else Hint(text=format_suggestion(near, client_id), issuer=issuer)


def format_suggestion(near: str, name: str) -> str:
    """Return the question, with the difference if it is hard to see."""
    how = ""
    if f"{near}/" == name:
        how = ", without the slash at the end"
    elif f"{name}/" == near:
        how = ", with a slash at the end"
    for name_of, text in (("given", name), ("registered", near)):
        if (stray := stray_character(text)) is not None:
            return f"did you mean {near}? The {name_of} name {stray}"
    return f"did you mean {near}{how}?"


def find_nearest_name(name: str, known_names: Iterable[str]) -> str | None:
    """Return the known name that is most similar to this one; None if none is similar."""
    plain = _normalize(name)
    alike: dict[str, str] = {}
    for candidate in islice(known_names, MAX_SEARCHED_NAMES):
        if (spelling := _normalize(candidate)) == plain:
            return candidate
        if len(alike) < MAX_COMPARED_NAMES and abs(len(spelling) - len(plain)) <= 2 + len(plain) // 8:
            alike.setdefault(spelling, candidate)
    near = get_close_matches(plain, alike, n=1, cutoff=MIN_SIMILARITY)
    return alike[near[0]] if near else None


def suggest(name: str, known: Iterable[str]) -> str:
    """Return "did you mean …?" with the most similar of these names, or all of them."""
    names = list(known)
    near = get_close_matches(name, names, 1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(names) or 'none'}"


def explain_unknown_issuer(iss: str, issuers: Iterable[str]) -> str:
    return f"{iss} is not configured under issuers; {suggest(iss, issuers)}"


def _normalize(name: str) -> str:
    """Remove the most frequent differences: case, surrounding blanks, the slash at the end, the scheme."""
    return name.strip().casefold().rstrip("/").removeprefix("https://").removeprefix("http://")
