"""Finds the clients that a front-channel page calls to sign a user out, and the URI of each call.

OpenID Connect Front-Channel Logout 1.0: the URI has one of the client's own origins (F1), its query stays, and `iss`
and `sid` are added together or not at all (F4). URIs come from the registry when the page is shown. For a client that
the registry does not have, an event or a context may supply one.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import field
from enum import StrEnum
from urllib.parse import urlencode, urlsplit

from notifier.model.client import Client, EgressPolicy, FrontChannelClient, FrontChannelWay
from notifier.model.egress import MAX_URI_LENGTH, check_uri, find_uri_issue
from notifier.model.origins import host_of, origin_of
from notifier.model.record import copy_record, record
from notifier.model.registry import Registry
from notifier.model.session_ended import ClientEntry, SessionEnded


@record
class FrontChannelContext:
    """The session that ended, and the clients to call: each `client_id`, with its separate `sid` if it has one.

    `supplied`: addresses for some of them, by `client_id`. They apply to clients that are not registered, if
    `check_addresses` accepts them.
    """

    iss: str
    sid: str | None
    clients: tuple[tuple[str, str | None], ...]
    supplied: Mapping[str, FrontChannelClient] = field(default_factory=dict, hash=False)


class AddressRefusal(StrEnum):
    """Why a page does not call a client at the supplied address.

    `registered`: the registry has the client, without an address that a page can call. `denied`: `registry.inline`
    accepts no supplied addresses. `speaker`: it accepts none from the event's publisher. `shared_key`: the key of the
    page is not the issuer's own. `address`: its scheme, form or `egress` forbids it. `own_host`: it is on the
    issuer's own host, so that the browser would send cookies.
    """

    REGISTERED = "registered"
    DENIED = "denied"
    SPEAKER = "speaker"
    SHARED_KEY = "shared_key"
    ADDRESS = "address"
    OWN_HOST = "own_host"


@record
class OmittedClient:
    """A client that a page does not call although an address was supplied. `text`: the mistake in the address."""

    client_id: str
    reason: AddressRefusal
    text: str


@record
class AskedClient:
    """A client of a page, and the URI that the page calls. `name` is its name for people."""

    client_id: str
    name: str
    uri: str


@record
class UnaskedClient:
    """A client that a page cannot call: it needs a `sid`, and there is none."""

    client_id: str
    name: str


@record
class PagePlan:
    """The content of a page: the clients that it calls, and the clients that it cannot call."""

    asked: tuple[AskedClient, ...]
    unasked: tuple[UnaskedClient, ...] = ()


def find_front_channel_error(uri: str, redirect_origins: tuple[str, ...], *, allow_http: bool) -> str | None:
    """Return why no page may call a client at `uri`, None if it may. F1 is checked only with `redirect_origins`."""
    if (malformed := find_uri_issue(uri)) is not None:
        return malformed
    if urlsplit(uri).scheme != "https" and not allow_http:
        return "is http; to allow it, set egress.allow_http"
    if redirect_origins and origin_of(uri) not in redirect_origins:
        return f"must have the scheme, host and port of one of the client's redirect_uris: {origin_of(uri)} is none"
    return None


def is_on_page(client: Client) -> bool:
    """True if the user's browser calls the client."""
    return client.front_channel is not None and client.front_channel.way is FrontChannelWay.BROWSER


def uri_of(client: Client, iss: str, sid: str | None) -> str | None:
    """Return the client's `frontchannel_logout_uri` with `iss` and `sid`; with neither if there is no `sid` (F4).

    None if the client requires them and there is no `sid`, or if it has no such URI.
    """
    return None if client.front_channel is None else _address_of(client.front_channel, iss, sid)


def create_page_context(event: SessionEnded, registry: Registry) -> FrontChannelContext | None:
    """Return the context of the page for an event; None if the browser has no client of the event to call.

    Entries with a separate `sid` keep it. Each client occurs once. Addresses from the event are not checked here: see
    `check_addresses`.
    """
    entries = {entry.client_id: entry for entry in _entries(event, registry)}
    supplied = {
        client_id: FrontChannelClient(
            frontchannel_logout_uri=uri,
            frontchannel_logout_session_required=bool(entry.frontchannel_logout_session_required),
        )
        for client_id, entry in entries.items()
        if (uri := entry.frontchannel_logout_uri) is not None and not _is_address_known(event.iss, client_id, registry)
    }
    registered = registry.clients_of(event.iss)
    clients = tuple(
        (entry.client_id, entry.sid)
        for entry in entries.values()
        if entry.client_id in supplied
        or ((client := registered.get(entry.client_id)) is not None and is_on_page(client))
    )
    return FrontChannelContext(iss=event.iss, sid=event.sid, clients=clients, supplied=supplied) if clients else None


def check_addresses(
    context: FrontChannelContext, registry: Registry, hosts: Collection[str], refusal: AddressRefusal | None
) -> tuple[FrontChannelContext, tuple[OmittedClient, ...]]:
    """Return the context with the clients that a page may call, and the clients whose address is not accepted.

    `hosts`: the issuer's own. `refusal`: why no address from this sender is accepted; None to check each address.
    """
    omitted: dict[str, OmittedClient] = {}
    if registry.inline == "deny":
        refusal = AddressRefusal.DENIED
    template = registry.template_of(context.iss)
    egress = EgressPolicy() if template is None else template.route.egress
    supplied: dict[str, FrontChannelClient] = {}
    for client_id, front in context.supplied.items():
        if _is_address_known(context.iss, client_id, registry):
            continue
        mistake: tuple[AddressRefusal, str] | None
        if registry.resolve(context.iss, client_id, None) is not None:
            mistake = AddressRefusal.REGISTERED, ""
        elif refusal is not None:
            mistake = refusal, ""
        else:
            mistake = _find_address_error(front.frontchannel_logout_uri, hosts, egress)
        if mistake is None:
            supplied[client_id] = front
        else:
            omitted[client_id] = OmittedClient(client_id=client_id, reason=mistake[0], text=mistake[1])
    clients = tuple((client_id, sid) for client_id, sid in context.clients if client_id not in omitted)
    return copy_record(context, clients=clients, supplied=supplied), tuple(omitted.values())


def plan_page(context: FrontChannelContext, registry: Registry) -> PagePlan:
    """Return the calls of a context's page by the current registry. Clients that it no longer has are omitted.

    Clients with a supplied address stay: `check_addresses` accepted it. If a client occurs under several names, the
    first applies.
    """
    asked: list[AskedClient] = []
    unasked: list[UnaskedClient] = []
    seen: set[str] = set()
    for name, own_sid in context.clients:
        if (client := registry.resolve(context.iss, name, None)) is None:
            client_id, title, front = name, name, context.supplied.get(name)
        else:
            client_id, title = client.client_id, client.client_name or client.client_id
            front = client.front_channel if is_on_page(client) else None
        if front is None or client_id in seen:
            continue
        seen.add(client_id)
        uri = _address_of(front, context.iss, context.sid if own_sid is None else own_sid)
        if uri is None:
            unasked.append(UnaskedClient(client_id=client_id, name=title))
        else:
            asked.append(AskedClient(client_id=client_id, name=title, uri=uri))
    return PagePlan(asked=tuple(asked), unasked=tuple(unasked))


def _is_address_known(iss: str, name: str, registry: Registry) -> bool:
    """Return True if the registry has the address that a page calls, or excludes the client from pages."""
    client = registry.resolve(iss, name, None)
    return client is not None and (client.front_channel is not None or client.off_page)


def _find_address_error(uri: str, hosts: Collection[str], egress: EgressPolicy) -> tuple[AddressRefusal, str] | None:
    """Return why no page may call this supplied address; None if pages may."""
    if len(uri) > MAX_URI_LENGTH:
        return AddressRefusal.ADDRESS, f"has more than {MAX_URI_LENGTH:,} characters"
    if (text := check_uri(uri, egress)) is not None:
        return AddressRefusal.ADDRESS, text
    host = host_of(uri)
    return None if host not in hosts else (AddressRefusal.OWN_HOST, f"is on {host}, the issuer's own host")


def _address_of(front: FrontChannelClient, iss: str, sid: str | None) -> str | None:
    uri = front.frontchannel_logout_uri
    if sid is None:
        return None if front.frontchannel_logout_session_required else uri
    mark = "&" if urlsplit(uri).query else "?"
    return f"{uri.removesuffix('?')}{mark}{urlencode({'iss': iss, 'sid': sid})}"


def _entries(event: SessionEnded, registry: Registry) -> Iterator[ClientEntry]:
    every = (client.client_id for client in registry.clients_of(event.iss).values() if is_on_page(client))
    named: Iterable[str | ClientEntry] = every if event.clients == "*" else event.clients
    for entry in named:
        yield ClientEntry(client_id=entry) if isinstance(entry, str) else entry
