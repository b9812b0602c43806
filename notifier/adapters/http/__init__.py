"""Sends logout tokens over HTTP, by aiohttp: the only adapter that reaches the clients.

`connections` decides what may be connected to and watches what comes over the wire; `transport` makes the request and
reads the answer; `faults` puts what went wrong into the pipeline's words.
"""

from notifier.adapters.http.transport import HttpTransport

__all__ = ["HttpTransport"]
