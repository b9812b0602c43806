"""Creates remarks on valid events that are probably not what the publisher intended, for the API and for `publish`."""

from collections.abc import Iterator

from notifier.model.printable import excerpt, stray_character
from notifier.model.registry import Registry
from notifier.model.session_ended import SessionEnded

MAX_EXAMINED_ENTRIES = 100  # entries of `clients` that are examined
MAX_NAMED_CLIENTS = 3  # unknown clients in one remark


def remark_members(event: SessionEnded) -> Iterator[str]:
    """Yield a remark for each member that is probably misspelt, or was dropped because it cannot be parsed."""
    for member in event.misspelt:
        widens = member.meant == "sid" and _has_client_without_sid(event)
        consequence = ", so that all sessions of the user end" if widens else ""
        yield f"{member.written} is unknown and left out{consequence}; did you mean {member.meant}?"
    for name in event.unread:
        form = "a text" if name == "reason" else "an RFC 3339 timestamp with an offset, like 2026-01-31T12:00:00Z"
        yield f"{name} cannot be read and is left out; it must be {form}"


def _has_client_without_sid(event: SessionEnded) -> bool:
    if event.sid is not None:
        return False
    return event.clients == "*" or any(isinstance(each, str) or each.sid is None for each in event.clients)


def remark_unknown_clients(event: SessionEnded, registry: Registry, *, accepts_addresses: bool) -> Iterator[str]:
    """Yield a remark that lists the clients for which neither the registry nor the event has an address.

    `accepts_addresses`: addresses in the event count.
    """
    unknown: list[str] = []
    for entry in () if event.clients == "*" else event.clients[:MAX_EXAMINED_ENTRIES]:
        if isinstance(entry, str):
            name, needs_no_registration = entry, False
        else:
            has_address = accepts_addresses and entry.backchannel_logout_uri is not None
            name, needs_no_registration = entry.client_id, entry.no_address or has_address
        if not needs_no_registration and registry.resolve(event.iss, name, None) is None:
            problem = stray_character(name)
            unknown.append(excerpt(name) if problem is None else f"{excerpt(name.strip())} (it {problem})")
    if unknown:
        named = ", ".join(unknown[:MAX_NAMED_CLIENTS])
        more = f" and {len(unknown) - MAX_NAMED_CLIENTS} more" if len(unknown) > MAX_NAMED_CLIENTS else ""
        noun = "client" if len(unknown) == 1 else "clients"
        yield f"the registry has no {noun} {named}{more}; the logout waits for its registration"
