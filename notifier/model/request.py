"""One request to a client, as a channel prepares it, and as the transport sends it."""

from collections.abc import Callable
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
    requests a connection that was not used before. `client` is named in reports about the connection. `on_begin` is
    called after TLS files were read: the time of the client begins then.
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
    on_begin: Callable[[], None] = lambda: None


@record
class PreparedRequest:
    """The request of one attempt: a POST of `body`, or a GET if it is None. `secret` must not be logged.

    `uri` is empty for the client's own address. `jti` is empty if no token is sent. After a 401, `renew` is called, and
    one more request is prepared in the same attempt.
    """

    jti: str
    body: bytes | None
    secret: str
    uri: str = ""
    extras: RequestExtras = NO_EXTRAS
    renew: Callable[[], None] | None = None

    def to_request(
        self, client: Client, uri: str, timeout: float, *, new_connection: bool,
        delivery: Delivery | None = None, on_begin: Callable[[], None] = lambda: None,
    ) -> Request:  # fmt: skip
        """Return the request to the client at its address `uri`, to be answered within `timeout` seconds.

        The user and session of the `delivery` are removed from the response's text.
        """
        return Request(
            uri=self.uri or uri, body=self.body, secret=self.secret, timeout=timeout, route=client.route,
            new_connection=new_connection, client=client, extras=self.extras, delivery=delivery, on_begin=on_begin,
        )  # fmt: skip
