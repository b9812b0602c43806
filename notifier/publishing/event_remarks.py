"""Creates remarks on valid events that are probably not what the publisher intended, for the API and for `publish`.

An unknown member is ignored, since publishers may add their own. But a member is reported if it resembles an optional
member that the event lacks: without its `sid`, a logout ends all sessions of the user.
"""

from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import islice
from typing import get_type_hints

from notifier.model.documents.event_members import EntryDocument, EventBody
from notifier.model.printable import excerpt, stray_character
from notifier.model.registry import Registry
from notifier.model.session_ended import SessionEnded

MAX_EXAMINED_ENTRIES = 100  # entries of `clients` that are examined
MAX_EXAMINED_MEMBERS = 20  # unknown members of one event: difflib takes up to 0.3 ms for each
MAX_NAMED_CLIENTS = 3  # unknown clients in one remark
MIN_SIMILARITY = 0.8  # difflib's ratio from which a member counts as misspelt
MAX_NAME_CHARACTERS = 60  # characters of a name that are compared

_OF_EVENT, _OF_ENTRY = frozenset(get_type_hints(EventBody)), frozenset(get_type_hints(EntryDocument))
_SYNONYMS = {
    "session": "sid", "sessionid": "sid", "sessionidentifier": "sid",
    "subject": "sub", "subjectid": "sub", "user": "sub", "userid": "sub", "username": "sub",
    "exp": "not_after", "expires": "not_after", "expiresat": "not_after",
    "eventid": "id", "jti": "id", "logoutreason": "reason", "time": "ended_at", "timestamp": "ended_at",
    "uri": "backchannel_logout_uri", "url": "backchannel_logout_uri", "logouturi": "backchannel_logout_uri",
    "logouturl": "backchannel_logout_uri", "alg": "id_token_signed_response_alg",
}  # fmt: skip


def remark_misspelt_members(data: Mapping[str, object]) -> Iterator[str]:
    """Yield a remark for each member of the event that is probably a misspelling of a known member.

    The number of examined members is limited, so that a body full of unknown names does not block the event loop.
    """
    for path, name, members, known in islice(_find_unknown_members(data), MAX_EXAMINED_MEMBERS):
        if (member := _find_meant_member(name, known)) is not None and members.get(member) is None:
            yield f"{path}{excerpt(name)} is not read; did you mean {member}?"


def remark_unread_members(event: SessionEnded) -> Iterator[str]:
    """Yield a remark for each informational member that was dropped because it cannot be parsed."""
    for name in event.unread:
        form = "a text" if name == "reason" else "an RFC 3339 timestamp with an offset, like 2026-01-31T12:00:00Z"
        yield f"{name} cannot be read and is left out; it must be {form}"


def _find_unknown_members(
    data: Mapping[str, object],
) -> Iterator[tuple[str, str, Mapping[str, object], frozenset[str]]]:
    for name in data.keys() - _OF_EVENT:
        yield "", name[:MAX_NAME_CHARACTERS], data, _OF_EVENT
    clients = data.get("clients")
    for number, entry in enumerate(clients[:MAX_EXAMINED_ENTRIES] if isinstance(clients, list) else ()):
        if isinstance(entry, dict):
            for name in entry.keys() - _OF_ENTRY:
                yield f"clients[{number}].", name[:MAX_NAME_CHARACTERS], entry, _OF_ENTRY


@lru_cache(maxsize=1024)
def _find_meant_member(name: str, known: frozenset[str]) -> str | None:
    plain = name.lower().replace("_", "").replace("-", "")
    if (word := _SYNONYMS.get(plain)) in known:
        return word
    return next(
        (
            member
            for member in sorted(known)
            if SequenceMatcher(None, plain, member.replace("_", "")).ratio() >= MIN_SIMILARITY
        ),
        None,
    )


def remark_unknown_clients(event: SessionEnded, registry: Registry, *, heard: bool) -> Iterator[str]:
    """Yield a remark that lists the clients for which neither the registry nor the event has an address.

    `heard`: addresses in the event are accepted.
    """
    unknown: list[str] = []
    for entry in () if event.clients == "*" else event.clients[:MAX_EXAMINED_ENTRIES]:
        name = entry if isinstance(entry, str) else entry.client_id
        has_address = not isinstance(entry, str) and (
            entry.no_address or (heard and entry.backchannel_logout_uri is not None)
        )
        if not has_address and registry.resolve(event.iss, name, None) is None:
            stray = stray_character(name)
            unknown.append(excerpt(name) if stray is None else f"{excerpt(name.strip())} (it {stray})")
    if unknown:
        named = ", ".join(unknown[:MAX_NAMED_CLIENTS])
        more = f" and {len(unknown) - MAX_NAMED_CLIENTS} more" if len(unknown) > MAX_NAMED_CLIENTS else ""
        noun = "client" if len(unknown) == 1 else "clients"
        yield f"the registry has no {noun} {named}{more}; the logout waits for its registration"
