"""One request to a client, as an attempt asks for it."""

from notifier.model.client import Client, Route
from notifier.model.frozen import frozen


@frozen
class Request:
    """One POST of a form, or a GET without a `body`.

    `timeout` in seconds bounds everything, from name look-up to the last byte of the answer.
    `secret` is taken out of the answer's text. `new_connection` asks for a connection that was not used before.
    `client` is named where the connection is reported.
    """

    uri: str
    body: bytes | None
    secret: str
    timeout: float
    route: Route
    new_connection: bool = False
    client: Client | None = None
