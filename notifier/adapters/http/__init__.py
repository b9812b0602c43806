"""Sends logout tokens over HTTP with aiohttp: the only adapter that reaches clients.

`connections` enforces egress and watches the wire, `transport` makes the request and reads the answer, and `faults`
translates failures for the pipeline.
"""

from notifier.adapters.http.transport import HttpTransport

__all__ = ["HttpTransport"]
