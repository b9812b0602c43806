"""One request to a client, as an attempt makes it."""

from notifier.model.client import Client, Route
from notifier.model.frozen import frozen


@frozen
class Request:
    """One POST of a form, or a GET without a `body`.

    `timeout` in seconds bounds everything, from name look-up to the last byte of the response.
    `secret` is removed from the response's text. `new_connection` requests a connection that was not used before.
    `client` is named in reports about the connection.
    """

    uri: str
    body: bytes | None
    secret: str
    timeout: float
    route: Route
    new_connection: bool = False
    client: Client | None = None
