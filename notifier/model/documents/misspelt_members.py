"""Finds unknown members of an event that probably mean a known one, such as `sessionid` for `sid`.

Unknown members are ignored, so publishers may add their own. But without its `sid` an event ends all sessions of the
user. So `SessionEnded.misspelt` has such members, for a remark. Only events with unknown members are searched.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from notifier.model.documents.event_members import EntryDocument, EventBody
from notifier.model.errors import InputIssue
from notifier.model.printable import excerpt
from notifier.model.session_ended import MisspeltMember
from notifier.model.shared_resources import shared_cache

MAX_REMARKS = 3  # misspelt members of one event
MAX_EXAMINED_NAMES = 100  # unknown members of one event, which may have 20,000
MAX_EXAMINED_ENTRIES = 100  # of `clients`
MAX_NAME_LENGTH = 100  # characters; the longest member has 36
MIN_EDITED_LENGTH = 5  # letters of a member from which a name with one edit means it

_SYNONYMS: Mapping[str, str] = {
    synonym: member
    for member, synonyms in {
        "sid": "sessionid session sessionstate sessid",
        "sub": "user userid subject uid",
        "iss": "issuer",
        "clients": "client clientids aud audience",
        "ended_at": "endedat time",
        "backchannel_logout_uri": "uri url logouturi logouturl backchanneluri backchannelurl",
        "backchannel_logout_session_required": "sessionrequired",
        "id_token_signed_response_alg": "alg algorithm",
    }.items()
    for synonym in synonyms.split()
}
EVENT_MEMBERS, ENTRY_MEMBERS = frozenset(EventBody.__annotations__), frozenset(EntryDocument.__annotations__)
MEANT_MEMBERS = tuple(dict.fromkeys((*EventBody.__annotations__, *EntryDocument.__annotations__)))


def _to_letters(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


_BY_LETTERS = {_to_letters(member): member for member in MEANT_MEMBERS}
_BY_LENGTH: Mapping[int, Sequence[str]] = {
    length: [letters for letters in _BY_LETTERS if len(letters) == length]
    for length in range(MIN_EDITED_LENGTH, MAX_NAME_LENGTH)
}


def find_misspelt_members(data: Mapping[str, object]) -> tuple[MisspeltMember, ...]:
    """Return up to three unknown members of the event that probably mean a known one, `sid` first."""
    found: dict[tuple[str, str], MisspeltMember] = {}
    for prefix, name, members in islice(_unknown_names(data), MAX_EXAMINED_NAMES):
        meant = _find_meant_of(name, members)
        if meant is not None:
            found.setdefault((name, meant), MisspeltMember(written=prefix + excerpt(name), meant=meant))
    return tuple(sorted(found.values(), key=lambda member: member.meant != "sid")[:MAX_REMARKS])


def suggest_members(
    issues: Iterable[InputIssue], path: str, data: Mapping[str, object], members: frozenset[str]
) -> Iterator[InputIssue]:
    """Yield the issues; that of a missing member with the first unknown member of `data` that probably means it.

    `path`: the prefix of the members of `data`. `members`: the known ones.
    """
    for issue in issues:
        missing = issue.path.removeprefix(path)
        written = None
        if missing in members and data.get(missing) is None:
            wanted = ("sub", "sid") if missing == "sub" else (missing,)
            names = islice((name for name in data if name not in members), MAX_EXAMINED_NAMES)
            written = next((name for name in names if _find_meant_of(name, members) in wanted), None)
        yield issue if written is None else InputIssue(issue.path, f"{issue.text}; is {excerpt(written)} meant?")


def _unknown_names(data: Mapping[str, object]) -> Iterator[tuple[str, str, frozenset[str]]]:
    """Yield each unknown name with the prefix of its path, and the members that it may mean."""
    yield from (("", name, EVENT_MEMBERS) for name in data if name not in EVENT_MEMBERS)
    clients = data.get("clients")
    for index, entry in enumerate(clients[:MAX_EXAMINED_ENTRIES] if isinstance(clients, list) else ()):
        if isinstance(entry, dict):
            yield from ((f"clients[{index}].", name, ENTRY_MEMBERS) for name in entry if name not in ENTRY_MEMBERS)


def _find_meant_of(name: str, members: frozenset[str]) -> str | None:
    return _find_meant_member(name, members) if len(name) <= MAX_NAME_LENGTH else None


@shared_cache(256)  # a publisher adds the same members to each event
def _find_meant_member(name: str, members: frozenset[str]) -> str | None:
    """Return the member that an unknown name probably means; None if it means none."""
    letters = _to_letters(name)
    if (meant := _SYNONYMS.get(letters)) in members:
        return meant
    if (meant := _BY_LETTERS.get(letters)) in members:
        return meant
    near = (
        each
        for length in (len(letters) - 1, len(letters), len(letters) + 1)
        for each in _BY_LENGTH.get(length, ())
        if _BY_LETTERS[each] in members and _differs_by_one_edit(letters, each)
    )
    return next((_BY_LETTERS[each] for each in near), None)


def _differs_by_one_edit(text: str, other: str) -> bool:
    """Return True if a letter is missing, added or replaced, or if two neighbours are exchanged.

    `other` has at least five letters, so that one edit leaves the first two or the last two as they are.
    """
    if text[:2] != other[:2] and text[-2:] != other[-2:]:
        return False
    for _ in range(2):  # remove what both begin with, then what both end with
        start = next((n for n, (one, two) in enumerate(zip(text, other, strict=False)) if one != two), None)
        start = min(len(text), len(other)) if start is None else start
        text, other = text[start:][::-1], other[start:][::-1]
    return max(len(text), len(other)) <= 1 or (len(text) == 2 and text == other[::-1])
