"""A listening socket with an aiohttp application behind it: how both listeners start, stop, and bound what comes in.

aiohttp closes a connection that has not sent a whole header within `keepalive_timeout`, counted from its beginning or
from the last answer; bodies are the application's to bound. Nothing is unpacked: a compressed body is not understood.
"""

import errno
import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from notifier.domain.errors import ConfigurationError, Mistake

HEADER_TIMEOUT = 10.0  # seconds, and how long a connection may idle
_LINGER = 2.0  # seconds for the rest of a body that was refused, so that the answer is read before the reset


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A listener that serves. `port` is the real one, where 0 was asked for."""

    host: str
    port: int
    tls: bool
    runner: web.AppRunner

    @property
    def url(self) -> str:
        """Where it is reached."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    async def close(self) -> None:
        """Take no more connections, let requests end (bounded by the grace given at the start), and close."""
        await self.runner.cleanup()


async def listen(
    app: web.Application,
    host: str,
    port: int,
    *,
    key: str,
    tls: ssl.SSLContext | None = None,
    grace: float = 5.0,
    header_timeout: float = HEADER_TIMEOUT,
) -> Listener:
    """Serve `app` there. `key` is the setting that names the address (`ops.listen`); `grace` is for requests that run
    when it closes, and `header_timeout` for a whole header, both in seconds.

    Raises ConfigurationError, which says what is wrong with the address.
    """
    logger = logging.getLogger("notifier.server")
    logger.addFilter(_discreet)  # once only, however often this runs
    runner = web.AppRunner(
        app,
        access_log=None,
        shutdown_timeout=grace,
        keepalive_timeout=header_timeout,
        lingering_time=_LINGER,
        auto_decompress=False,
        logger=logger,
    )
    app.on_response_prepare.append(_anonymous)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, ssl_context=tls).start()
    except OSError as error:
        await runner.cleanup()
        raise ConfigurationError([Mistake(key, _explain(error, host, port))]) from error
    real = int(runner.addresses[0][1])
    return Listener(host=host, port=real, tls=tls is not None, runner=runner)


_EXPLANATIONS: Mapping[int, str] = {
    errno.EADDRINUSE: "is taken by another process; stop it, or choose another port (0 takes any that is free)",
    errno.EADDRNOTAVAIL: "is no address of this machine; 127.0.0.1 serves this machine alone, 0.0.0.0 everybody",
    errno.EACCES: "may not be used by this user; ports below 1024 are reserved, choose a higher one",
}


def _explain(error: OSError, host: str, port: int) -> str:
    what = _EXPLANATIONS.get(error.errno or 0, f"cannot be listened on: {error.strerror or type(error).__name__}")
    return f"{host}:{port} {what}"


async def _anonymous(_request: web.Request, response: web.StreamResponse) -> None:
    """Versions of libraries are nobody's business."""
    response.headers.popall("Server", None)


def _discreet(record: logging.LogRecord) -> bool:
    """aiohttp logs a request it cannot parse with the offending line, which may well be the one with the token."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))
