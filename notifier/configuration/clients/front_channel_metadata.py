"""Reads what a client's metadata say of front-channel logout, and says what is wrong with it.

An address that no page can ask is a warning, since the client may still be told by back-channel. If the worker itself
is to call it, there is no other way, and it is a mistake.
"""

from collections.abc import Iterator

from notifier.model.client import Client, FrontChannelClient, FrontChannelWay, Route
from notifier.model.egress import check_uri, uri_mistake
from notifier.model.front_channel import front_channel_mistake
from notifier.settings.clients import ClientMetadata, ClientOptions


def front_channel_of(
    metadata: ClientMetadata, options: ClientOptions, origins: tuple[str, ...], route: Route
) -> FrontChannelClient | None:
    """Return what the client says of front-channel; None if its URI cannot be used, or nobody is to call it."""
    uri, way = metadata.frontchannel_logout_uri, options.front_channel or FrontChannelWay.BROWSER
    if uri is None or way is FrontChannelWay.OFF:
        return None
    waits = way is FrontChannelWay.SERVER and route.withheld is not None
    if front_channel_mistake(uri, origins, allow_http=waits or route.egress.allow_http) is not None:
        return None
    required = bool(metadata.frontchannel_logout_session_required)
    return FrontChannelClient(frontchannel_logout_uri=uri, frontchannel_logout_session_required=required, way=way)


def front_channel_warning(metadata: ClientMetadata, client: Client) -> str | None:
    """Say why browsers do not ask a client."""
    uri = metadata.frontchannel_logout_uri
    if uri is None or client.front_channel is not None or _by_server(metadata):
        return None
    text = front_channel_mistake(uri, client.redirect_origins, allow_http=client.route.egress.allow_http)
    return None if text is None else f"of client {metadata.client_id} is not used: it {text}"


def wrong_for_server(metadata: ClientMetadata, client: Client, *, unsure: bool) -> Iterator[tuple[str, str]]:
    """Say what stands against a call by the worker itself, by the member to change.

    `unsure`: nothing is known of where requests may go.
    """
    if not _by_server(metadata):
        return
    uri, route = metadata.frontchannel_logout_uri, client.route
    if metadata.backchannel_logout_uri is not None:
        text = "is server, but the client has a backchannel_logout_uri, by which it is told; remove one of the two"
        yield "notifier.front_channel", text
    if uri is None:
        yield "notifier.front_channel", "is server, but the client has no frontchannel_logout_uri"
        return
    text_of_uri = uri_mistake(uri)
    if text_of_uri is None and not unsure:
        waits = route.withheld is not None
        mistake = front_channel_mistake(uri, client.redirect_origins, allow_http=waits or route.egress.allow_http)
        text_of_uri = mistake or (None if waits else check_uri(uri, route.egress))
    if text_of_uri is not None:
        yield "frontchannel_logout_uri", text_of_uri


def _by_server(metadata: ClientMetadata) -> bool:
    """True if the client itself says that the worker is to call its front-channel URI."""
    return metadata.notifier is not None and metadata.notifier.front_channel is FrontChannelWay.SERVER
