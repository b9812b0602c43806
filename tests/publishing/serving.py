"""The API on a real socket, and its tokens: the secret of the token `idp` is `idp-secret`."""

import hashlib
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from notifier.model.client import Client
from notifier.model.message import Lane
from notifier.model.registry import Issuer, Registry
from notifier.model.session_ended import SessionEnded
from notifier.network.listeners.listener import Listener, listen
from notifier.network.listeners.request_counts import RequestCounts
from notifier.operators.status.service_status import ServiceStatus, status_of
from notifier.publishing.event_requests import ApiSources
from notifier.publishing.notice_wait import WaitingRequests
from notifier.settings.api_tokens import ApiToken

ISS = "https://id.example.com"
NOW = 1000.0
CLIENTS = {
    name: Client(iss=ISS, client_id=name, backchannel_logout_uri=f"https://{name}.example.com/out")
    for name in ("shop", "mail")
}
REGISTRY = Registry(issuers={ISS: Issuer(iss=ISS)}, clients={ISS: CLIENTS})


def token(name: str, *scopes: str, issuers: frozenset[str] | None = None) -> ApiToken:
    """Return a token that may publish, unless other scopes are given."""
    digest = hashlib.sha256(f"{name}-secret".encode()).digest()
    return ApiToken(name=name, sha256=digest, scopes=frozenset(scopes or ("publish",)), issuers=issuers)  # type: ignore[arg-type]


def sources_of(
    tokens: Callable[[], Iterable[ApiToken] | None] = lambda: None,
    registry: Registry = REGISTRY,
    waiting: WaitingRequests | None = None,
) -> ApiSources:
    """Return the dependencies of the API. Without tokens, it accepts only this machine."""
    return ApiSources(
        registry=lambda: registry,
        tokens=tokens,
        counts=RequestCounts(tokens, lambda: NOW),
        clock=lambda: NOW,
        new_id=lambda: "made-up-id",
        waiting=waiting,
    )


async def accept(event: SessionEnded, lane: Lane) -> None:
    """Accept every event."""


async def look() -> ServiceStatus:
    """Return the status of an idle service."""
    return status_of({}, (), now=NOW)


@asynccontextmanager
async def serving(app: web.Application, host: str = "127.0.0.1", **listening: Any) -> AsyncIterator[Listener]:
    """Run the listener, and close it at the end."""
    listener = await listen(app, host, 0, key="api.listen", grace=1, **listening)
    try:
        yield listener
    finally:
        await listener.close()
