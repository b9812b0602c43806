"""Translates a failed request for the pipeline: a `TransportFailure` with its reason, or a stale connection.

Texts are for operators: short, without the token, the extra headers and the proxy's password.
"""

import errno
import os
import socket
import ssl

import aiohttp
from yarl import URL

from notifier.model.errors import InternalFault
from notifier.model.outcome import (
    Cause,
    HttpResponse,
    Reason,
    StaleConnection,
    TransportFailure,
    TransportResult,
    find_challenge,
)
from notifier.network.http.connections import Exchange

MAX_TEXT_CHARACTERS = 300  # characters
OPEN_FILES_TEXT = "the process or the system may open no further file or connection; raise the limit of open files"
_PROXY_FAILURE_STATUSES = (502, 503, 504)  # statuses of a proxy that could not reach the client


def translate_fault(error: aiohttp.ClientError | OSError, exchange: Exchange, proxy: URL | None) -> TransportResult:
    """Translate an error, using the records of the exchange. Raises InternalFault(cause=open_files)."""
    if exchange.connection is None:
        if _lacks_open_files(error):
            raise InternalFault(Cause.OPEN_FILES, OPEN_FILES_TEXT)
        return _translate_unwritten(error, exchange, proxy)
    status, header = exchange.connection.status, exchange.connection.header
    if status is not None and (exchange.connection.head_too_large or isinstance(error, aiohttp.ClientResponseError)):
        # A response arrived. Of its unusable headers, only the pause and the challenge count.
        challenge = find_challenge(header)
        return HttpResponse(status=status, retry_after=header("retry-after"), date=header("date"), challenge=challenge)
    if exchange.connection.has_too_many_interim_responses:
        return _to_break(Reason.DISCONNECTED, "too many interim answers (1xx) before the final one", ambiguous=True)
    if exchange.reused and not exchange.connection.head:
        return StaleConnection()
    fault = _find_tls_fault(error)
    if fault is not None:  # with TLS 1.3 the server checks our certificate after the request
        return _to_break(Reason.TLS, fault, ambiguous=True)
    return _to_break(Reason.DISCONNECTED, _describe_disconnect(error), ambiguous=True)


def translate_timeout(seconds: float | None, exchange: Exchange, proxy: URL | None) -> TransportFailure:
    """Translate a passed deadline; `seconds` are for the text. A silent proxy that was reached may await the client."""
    within = "" if seconds is None else f" within {round(seconds, 2):g} s"  # a timeout of 2 s may have 1.99978 s left
    if exchange.connection is not None:
        return _to_break(Reason.TIMEOUT, f"no complete answer{within}", ambiguous=True)
    if proxy is not None and not exchange.reached:
        return _to_break(Reason.PROXY, f"proxy {_name_peer(proxy)}: not reached{within}")
    if proxy is None and exchange.reached:  # an http request would have been written at once
        return _to_break(Reason.TIMEOUT, f"connected, but no TLS handshake{within}")
    return _to_break(Reason.TIMEOUT, f"no connection{within}")


def translate_proxy_refusal(proxy: URL, status: int, reason: Reason = Reason.PROXY) -> TransportFailure:
    """Return the break for a proxy that answered in place of the client."""
    return _to_break(reason, f"proxy {_name_peer(proxy)}: answered {status}")


def _translate_unwritten(
    error: aiohttp.ClientError | OSError, exchange: Exchange, proxy: URL | None
) -> TransportFailure:
    """Return the break for an error before anything was written: the request had no effect."""
    if isinstance(error, aiohttp.InvalidURL):
        return _to_break(Reason.EGRESS_DENIED, f"host {error.description or 'cannot be used'}")
    if proxy is not None and _is_proxy_failure(error, proxy):
        if isinstance(error, aiohttp.ClientHttpProxyError):
            reason = Reason.CONNECT if error.status in _PROXY_FAILURE_STATUSES else Reason.PROXY
            return translate_proxy_refusal(proxy, error.status, reason)
        return _to_break(Reason.PROXY, f"proxy {_name_peer(proxy)}: {_find_tls_fault(error) or _describe(error)}")
    if exchange.denied is not None and exchange.tried is None:  # every address was denied
        return _to_break(Reason.EGRESS_DENIED, exchange.denied)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return _to_break(Reason.DNS, f"{error.host}: {error.os_error.args[-1]}")
    fault = _find_tls_fault(error)
    return _to_break(Reason.CONNECT, _describe(error)) if fault is None else _to_break(Reason.TLS, fault)


def _lacks_open_files(error: aiohttp.ClientError | OSError) -> bool:
    """Return True if no connection could be opened because of a limit of open files.

    The resolver does not report that, so it is tested whether another file can be opened.
    """
    cause = _find_cause(error)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        try:
            socket.socket().close()
        except OSError as fault:
            cause = fault
    return isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE)


def _is_proxy_failure(error: aiohttp.ClientError | OSError, proxy: URL) -> bool:
    """Return True if the proxy failed, not the client behind it. A connection error names the host."""
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientConnectorCertificateError):
        return isinstance(error, aiohttp.ClientProxyConnectionError) or (
            (error.host, error.port) == (proxy.raw_host, proxy.port)
        )
    return True


def _find_tls_fault(error: BaseException) -> str | None:
    """Return OpenSSL's text for the fault; None if TLS did not fail."""
    cause = _find_cause(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"certificate: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return f"TLS: {cause.reason or cause.strerror or 'failed'}"
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.ssl, ssl.SSLContext):
        return find_broken_handshake(error.os_error)
    return "TLS failed" if isinstance(error, aiohttp.ClientSSLError) else None


def find_broken_handshake(error: OSError) -> str | None:
    """Return a text for an error of a new TLS connection that the peer ended; None for another error."""
    if isinstance(error, ConnectionResetError | ConnectionAbortedError | BrokenPipeError):
        return "TLS: the server ended the connection in the handshake"
    return None


def _find_cause(error: BaseException) -> BaseException | None:
    """Return the error of OpenSSL or of the system that caused an error of aiohttp; None if there is none."""
    cause: BaseException | None = error
    while isinstance(cause, aiohttp.ClientError):  # some of these are also SSLErrors without a text
        cause = cause.__cause__
    return cause


def _describe_disconnect(error: aiohttp.ClientError | OSError) -> str:
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "connection closed before the answer was complete"
    if isinstance(error, aiohttp.ClientResponseError):
        return "the answer is not HTTP/1.1"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the connection broke within the answer"
    return _describe(error)


def _describe(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
    if isinstance(error, OSError):
        return os.strerror(error.errno) if error.errno else error.strerror or str(error) or type(error).__name__
    return type(error).__name__


def _name_peer(proxy: URL) -> str:
    """Return host and port, without user name and password."""
    return f"{proxy.host}:{proxy.port}"


def _to_break(reason: Reason, text: str, *, ambiguous: bool = False) -> TransportFailure:
    return TransportFailure(reason=reason, text=text[:MAX_TEXT_CHARACTERS], ambiguous=ambiguous)
