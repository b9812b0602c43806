"""Finds the clients that a front-channel page asks to sign a user out, and the address at which it asks each.

OpenID Connect Front-Channel Logout 1.0: the URI is one of the client's own origins (F1), its query stays, and `iss` and
`sid` are added together or not at all (F4). Addresses come from the registry when the page is shown.
"""

from collections.abc import Iterable, Iterator
from urllib.parse import urlencode, urlsplit

from notifier.model.client import Client, FrontChannelWay
from notifier.model.egress import uri_mistake
from notifier.model.frozen import frozen
from notifier.model.origins import origin_of
from notifier.model.registry import Registry
from notifier.model.session_ended import ClientEntry, SessionEnded


@frozen
class FrontChannelContext:
    """Whose session ended, and which clients to ask: each `client_id`, with a `sid` of its own if it has one."""

    iss: str
    sid: str | None
    clients: tuple[tuple[str, str | None], ...]


@frozen
class AskedClient:
    """A client of a page, and where the page asks it. `name` is what people call it."""

    client_id: str
    name: str
    uri: str


@frozen
class UnaskedClient:
    """A client that a page cannot ask: it needs a `sid`, and there is none."""

    client_id: str
    name: str


@frozen
class PagePlan:
    """What a page does: the clients that it asks, and those that it cannot."""

    asked: tuple[AskedClient, ...]
    unasked: tuple[UnaskedClient, ...] = ()


def front_channel_mistake(uri: str, redirect_origins: tuple[str, ...], *, allow_http: bool) -> str | None:
    """Say why no page may ask a client at `uri`. None if it may. Without `redirect_origins` F1 cannot be checked."""
    malformed = uri_mistake(uri)
    if malformed is not None:
        return malformed
    if urlsplit(uri).scheme != "https" and not allow_http:
        return "is http; to allow it, set egress.allow_http"
    if redirect_origins and origin_of(uri) not in redirect_origins:
        return f"must have the scheme, host and port of one of the client's redirect_uris: {origin_of(uri)} is none"
    return None


def is_on_page(client: Client) -> bool:
    """True if the client is asked by the user's browser."""
    return client.front_channel is not None and client.front_channel.way is FrontChannelWay.BROWSER


def uri_of(client: Client, iss: str, sid: str | None) -> str | None:
    """The client's `frontchannel_logout_uri` with `iss` and `sid`, with neither if there is no `sid` (F4).

    None if the client must have them and there is no `sid`, or has no such URI.
    """
    channel = client.front_channel
    if channel is None or (sid is None and channel.frontchannel_logout_session_required):
        return None
    if sid is None:
        return channel.frontchannel_logout_uri
    mark = "&" if urlsplit(channel.frontchannel_logout_uri).query else "?"
    return f"{channel.frontchannel_logout_uri.removesuffix('?')}{mark}{urlencode({'iss': iss, 'sid': sid})}"


def page_context(event: SessionEnded, registry: Registry) -> FrontChannelContext | None:
    """The context of the page for an event. None if the browser need ask none of its clients.

    Entries with a `sid` of their own keep it. A client is there once.
    """
    entries = {entry.client_id: entry for entry in _entries(event, registry)}
    registered = registry.clients_of(event.iss)
    clients = tuple(
        (entry.client_id, entry.sid)
        for entry in entries.values()
        if (client := registered.get(entry.client_id)) is not None and is_on_page(client)
    )
    return FrontChannelContext(iss=event.iss, sid=event.sid, clients=clients) if clients else None


def page_plan(context: FrontChannelContext, registry: Registry) -> PagePlan:
    """What the page of a context does, by the registry as it is now. Clients that it no longer has are left out."""
    asked: list[AskedClient] = []
    unasked: list[UnaskedClient] = []
    registered = registry.clients_of(context.iss)
    for client_id, own_sid in context.clients:
        client = registered.get(client_id)
        if client is None or not is_on_page(client):
            continue
        name, uri = (
            client.client_name or client_id,
            uri_of(client, context.iss, context.sid if own_sid is None else own_sid),
        )
        if uri is None:
            unasked.append(UnaskedClient(client_id=client_id, name=name))
        else:
            asked.append(AskedClient(client_id=client_id, name=name, uri=uri))
    return PagePlan(asked=tuple(asked), unasked=tuple(unasked))


def _entries(event: SessionEnded, registry: Registry) -> Iterator[ClientEntry]:
    every = (client.client_id for client in registry.clients_of(event.iss).values() if is_on_page(client))
    named: Iterable[object] = every if event.clients == "*" else event.clients
    for entry in named:
        if isinstance(entry, str):
            yield ClientEntry(client_id=entry)
        elif isinstance(entry, ClientEntry):
            yield entry
