"""Validate events as notifier does. The conformance suite compares the two.

Unknown members are ignored. `null` means that a member is left out; as a client's address, that the client has none.
"""

import json
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import IPv6Address

from logout_notifier_publisher.moment import is_moment

MAX_EVENT_BYTES = 128 * 1024
MAX_ID_BYTES = 255  # an event's id becomes an AMQP `message_id`, a short string
MAX_TEXT_LENGTH, MAX_URI_LENGTH = 1024, 4096  # characters
MAX_LISTED_MISTAKES = 20  # the others are counted

_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # ids travel in headers and logs
_NO_URI_CHARACTER = re.compile(r"[^!-\[\]-~]")
_URI = re.compile(r"https?://([^/?]*)", re.IGNORECASE)
_AUTHORITY = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]+)(?::([0-9]{1,5}))?")
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")


class EventMistake(ValueError):  # noqa: N818  the name that callers catch
    """The event is invalid. `mistakes` lists all errors."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("; ".join(mistakes))
        self.mistakes = tuple(mistakes)


def to_json(value: object) -> bytes:
    """Return the JSON of a value of an event. Raises EventMistake."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise EventMistake([f"cannot be written as JSON: {type(error).__name__}"]) from None


def to_checked_json(event: Mapping[str, object]) -> bytes:
    """Return the event as it is published. Raises EventMistake if notifier would refuse it, or if it has no id."""
    body = to_json(event)
    found = list(_find_mistakes(event))
    if len(body) > MAX_EVENT_BYTES:
        found.append(f"the event has {len(body)} bytes; at most {MAX_EVENT_BYTES} are allowed")
    more = len(found) - MAX_LISTED_MISTAKES
    if more > 0:
        found[MAX_LISTED_MISTAKES:] = [f"and {more} more mistake{'' if more == 1 else 's'}"]
    if found:
        raise EventMistake(found)
    return body


def _find_mistakes(event: Mapping[str, object]) -> Iterator[str]:
    if "specversion" in event:
        yield "specversion: must not be given: the event would be read as an envelope of CloudEvents"
    yield from _check_members(event, _EVENT, required=("id", "iss"))
    clients = event.get("clients")
    entries = clients if isinstance(clients, list) else []
    if clients != "*" and not entries:
        yield 'clients: give a list of at least one client, or "*" for all'
    named = _names_user(event)
    if not named and not any(map(_names_user, entries)):
        yield "sub: sub or sid is required, here or in every entry of clients"
        named = True  # reported once, not for each entry
    for index, entry in enumerate(entries):
        yield from _check_entry(entry, f"clients[{index}]", named=named)


def _check_entry(entry: object, path: str, *, named: bool) -> list[str]:
    if isinstance(entry, dict):
        wrong = list(_check_members(entry, _CLIENT, required=("client_id",), path=f"{path}."))
    elif isinstance(entry, str):
        wrong = [f"{path}: {text}"] if (text := _check_client_id(entry)) is not None else []
    else:
        wrong = [f"{path}: must be a client_id or an object with one, not {_describe_type(entry)}"]
    if wrong or named or _names_user(entry):
        return wrong
    return [f"{path}: must have sub or sid, because the event has neither"]


def _names_user(document: object) -> bool:
    return isinstance(document, Mapping) and not (document.get("sub") is None and document.get("sid") is None)


def _check_members(
    document: Mapping[str, object], checks: "Mapping[str, _Check]", *, required: Sequence[str], path: str = ""
) -> Iterator[str]:
    for name, check in checks.items():
        value = document.get(name)
        text = check(value) if value is not None else "is required" if name in required else None
        if text is not None:
            yield f"{path}{name}: {text}"


# ── checks of one member: the error, or None ──

_Check = Callable[[object], str | None]


def _check_text(value: object, longest: int = MAX_TEXT_LENGTH) -> str | None:
    if not isinstance(value, str):
        return f"must be a string, not {_describe_type(value)}"
    if not value:
        return "must not be empty"
    if len(value) > longest:
        return f"must have at most {longest} characters"
    return "must not contain control characters" if _CONTROL.search(value) else None


def _check_id(value: object) -> str | None:
    if isinstance(value, str) and len(value.encode()) > MAX_ID_BYTES:
        return f"must have at most {MAX_ID_BYTES} bytes in UTF-8"
    return _check_text(value)


def _check_client_id(value: object) -> str | None:
    if value == "*":
        return 'is not a client_id; for all clients write "clients": "*", without a list'
    return _check_text(value)


def _check_moment(value: object) -> str | None:
    if isinstance(value, str) and is_moment(value):
        return None
    return "must be an RFC 3339 timestamp with an offset, like 2026-01-31T12:00:00Z"


def _check_flag(value: object) -> str | None:
    return None if isinstance(value, bool) else f"must be true or false, not {_describe_type(value)}"


def _check_algorithm(value: object) -> str | None:
    return None if value in _ALGORITHMS else f"is not supported; must be one of {', '.join(_ALGORITHMS)}"


def _check_uri(value: object) -> str | None:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_URI_LENGTH:
        return _check_text(value, MAX_URI_LENGTH)
    if _NO_URI_CHARACTER.search(value):
        return "has a character that no URI may have: percent-encode it, and write the host in punycode"
    if "#" in value:
        return "must not have a fragment (#…)"
    parts = _URI.match(value)
    if parts is None:
        return "must be an absolute URI that begins with https://"
    if "@" in parts[1]:
        return "must not have a user name or password before the host"
    authority = _AUTHORITY.fullmatch(parts[1])
    if authority is None or not _is_host(authority[1]):
        return "must have a valid host, and a port that is a number if any"
    if authority[2] is not None and not 0 < int(authority[2]) < 65_536:
        return "must have a port between 1 and 65535"
    return None


def _is_host(host: str) -> bool:
    """Return whether it is a name, or an address in any form (`127.1`), which notifier's egress rules then judge."""
    name = host.removesuffix(".")
    labels = name.split(".")
    try:
        if host.startswith("["):
            return "%" not in host and IPv6Address(host[1:-1]) is not None
        if _NUMBER.fullmatch(labels[-1]):
            return socket.inet_aton(name) is not None
    except (ValueError, OSError):
        return False
    return len(name) <= 253 and all(map(_LABEL.fullmatch, labels))


def _describe_type(value: object) -> str:
    match value:
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case dict():
            return "an object"
        case None:
            return "null"
        case _:
            return "an array"


_EVENT: Mapping[str, _Check] = {
    "id": _check_id,
    "iss": _check_text,
    "sub": _check_text,
    "sid": _check_text,
    "email": _check_text,
    "ended_at": _check_moment,
    "not_after": _check_moment,
    "reason": _check_text,
}
_CLIENT: Mapping[str, _Check] = {
    "client_id": _check_client_id,
    "backchannel_logout_uri": _check_uri,
    "backchannel_logout_session_required": _check_flag,
    "id_token_signed_response_alg": _check_algorithm,
    "frontchannel_logout_uri": _check_uri,
    "frontchannel_logout_session_required": _check_flag,
    "sub": _check_text,
    "sid": _check_text,
}
