"""One request to a client, as an attempt makes it."""

from typing import TypeAlias

from notifier.model.client import Client, Route
from notifier.model.delivery import Delivery
from notifier.model.record import record

Headers: TypeAlias = tuple[tuple[str, str], ...]
"""Names and values."""


@record
class RequestExtras:
    """What a channel adds to a request: `headers` of all its requests, and the value `authorization` of a header of
    this request only. `error_member` is the member of a JSON response that has the error code.
    """

    headers: Headers = ()
    authorization: str = ""
    error_member: str = ""


NO_EXTRAS = RequestExtras()


@record
class Request:
    """One POST, of a form unless its `extras` have another content type, or a GET without a `body`.

    `timeout` in seconds bounds everything, from name look-up to the last byte of the response.
    `secret` is removed from the response's text, and so are the user and session of the `delivery`. `new_connection`
    requests a connection that was not used before. `client` is named in reports about the connection.
    """

    uri: str
    body: bytes | None
    secret: str
    timeout: float
    route: Route
    new_connection: bool = False
    client: Client | None = None
    extras: RequestExtras = NO_EXTRAS
    delivery: Delivery | None = None
