"""Finds the known name that an unknown name most likely means, for the question "did you mean …?".

A registry may have 100,000 clients, and owners of lists choose their names. So a search examines a bounded number of
names, and difflib compares only short parts: 100 names of 195 times the same letter took it 0.3 s. A search takes a few
milliseconds, and 50 ms at most.
"""

from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches
from itertools import islice
from unicodedata import is_normalized, normalize

from notifier.model.printable import stray_character
from notifier.model.record import record
from notifier.model.registry import Issuer, Registry

MAX_SEARCHED_NAMES = 5_000  # names that one search reads
MAX_NAME_LENGTH = 200  # characters of these names; normalizing 5,000 takes up to 20 ms, if each has many accents
MAX_COMPARED_NAMES = 100  # of them
MAX_COMPARED_LENGTH = 48  # characters between the same beginning and end, which difflib compares in up to 0.2 ms
MIN_SIMILARITY = 0.75  # difflib's ratio from which names are similar: two of four letters may be swapped


@record
class Hint:
    """A suggestion as a sentence. `issuer`: the suggested issuer, or the issuer of the suggested client."""

    text: str
    issuer: Issuer

    def concerns(self, publisher: str | None) -> bool:
        """Return True if this publisher may publish for the issuer, and therefore may read its names."""
        return self.issuer.publishers is None or publisher in self.issuer.publishers


def suggest_issuer(iss: str, registry: Registry) -> Hint | None:
    """Return a hint at the configured issuer that an unknown issuer may mean; None if none is similar."""
    nearest = find_nearest_name(iss, registry.issuers)
    return None if nearest is None else Hint(text=format_suggestion(nearest, iss), issuer=registry.issuers[nearest])


def suggest_client(iss: str, client_id: str, registry: Registry) -> Hint | None:
    """Return a hint at the client that an unknown name may mean; None if there is none, or if the client is registered.

    It is a client of the same name at another issuer, or of a similar name at this issuer.
    """
    if client_id in registry.clients_of(iss):
        return None
    for other_iss in islice(registry.issuers, MAX_SEARCHED_NAMES):
        if client_id in registry.clients_of(other_iss):
            return Hint(text=f"there is one of that name at the issuer {other_iss}", issuer=registry.issuers[other_iss])
    nearest = find_nearest_name(client_id, registry.clients_of(iss))
    issuer = registry.issuers.get(iss)
    if nearest is None or issuer is None:
        return None
    return Hint(text=format_suggestion(nearest, client_id), issuer=issuer)


def format_suggestion(nearest: str, name: str) -> str:
    """Return "did you mean …?" with the nearest name, and the difference if it is hard to see."""
    for which, text in (("given", name), ("registered", nearest)):
        if (problem := stray_character(text)) is not None:
            return f"did you mean {nearest}? The {which} name {problem}"
    difference = ""
    if normalize("NFC", nearest) == normalize("NFC", name):
        difference = f", which is in the Unicode form {'NFC' if is_normalized('NFC', nearest) else 'NFD'}"
    elif f"{nearest}/" == name:
        difference = ", without the slash at the end"
    elif f"{name}/" == nearest:
        difference = ", with a slash at the end"
    return f"did you mean {nearest}{difference}?"


def find_nearest_name(name: str, known_names: Iterable[str]) -> str | None:
    """Return the known name that is most similar to this name; None if none is similar, or if the name is long."""
    if len(name) > MAX_NAME_LENGTH:
        return None
    normalized = _normalize(name)
    max_length_difference = 2 + len(normalized) // 8
    candidates: dict[str, str] = {}  # known names by their normalized form
    for known_name in islice(known_names, MAX_SEARCHED_NAMES):
        if len(known_name) > MAX_NAME_LENGTH:
            continue
        if (candidate := _normalize(known_name)) == normalized:
            return known_name
        is_similar_length = abs(len(candidate) - len(normalized)) <= max_length_difference
        if is_similar_length and len(candidates) < MAX_COMPARED_NAMES:
            candidates.setdefault(candidate, known_name)
    similarity, nearest = max(((_similarity(normalized, each), each) for each in candidates), default=(0.0, ""))
    return candidates[nearest] if similarity >= MIN_SIMILARITY else None


def _similarity(name: str, other: str) -> float:
    """Return difflib's ratio of two different names. Parts that differ and are long count as entirely different."""
    start = _count_shared(name, other)
    part, other_part = name[start:], other[start:]
    end = _count_shared(part[::-1], other_part[::-1])
    part, other_part = part[: len(part) - end], other_part[: len(other_part) - end]
    matched = start + end
    if max(len(part), len(other_part)) <= MAX_COMPARED_LENGTH:
        matched += sum(block.size for block in SequenceMatcher(None, part, other_part).get_matching_blocks())
    return 2 * matched / (len(name) + len(other))


def _count_shared(name: str, other: str) -> int:
    """Return the number of characters with which both begin."""
    pairs = enumerate(zip(name, other, strict=False))
    return next((n for n, (one, two) in pairs if one != two), min(len(name), len(other)))


def suggest(name: str, known: Iterable[str]) -> str:
    """Return "did you mean …?" with the most similar known name; a list of all known names if none is similar."""
    names = list(known)
    nearest = get_close_matches(name, names, 1)
    return f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(names) or 'none'}"


def explain_unknown_issuer(iss: str, issuers: Iterable[str]) -> str:
    return f"{iss} is not configured under issuers; {suggest(iss, issuers)}"


def _normalize(name: str) -> str:
    """Return the name without its scheme, slashes at the end and surrounding blanks, in lower case and composed."""
    return normalize("NFC", name).strip().casefold().rstrip("/").removeprefix("https://").removeprefix("http://")
