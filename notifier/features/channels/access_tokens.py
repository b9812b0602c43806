"""Fetches the access tokens that some receivers require, by client credentials (RFC 6749 §4.4).

The token endpoint is not trusted: the request follows the client's egress rules and no redirect, and only a short
Bearer token is used. A token is kept in memory until shortly before its end, and is neither stored nor logged. If none
can be fetched, the deliveries of this client are deferred: the client did not cause it.
"""

import asyncio
import base64
import math
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote_plus

from notifier.features.channels.channel_settings import ProofSettings
from notifier.model.client import Client, ClientKey, TlsFiles
from notifier.model.errors import ConfigurationError, InternalFault
from notifier.model.moment import Clock
from notifier.model.outcome import Cause
from notifier.network.http.json_client import JsonClient, NoAnswer
from notifier.network.http.json_parts import Bounds
from notifier.settings.secret_text import read_secret

MAX_ANSWER_BYTES = 64 * 1024
MAX_TOKEN_CHARACTERS = 8 * 1024
MAX_LIFE_SECONDS, DEFAULT_LIFE_SECONDS = 86_400.0, 60.0
FETCH_INTERVAL_SECONDS = 1.0  # at least, between two fetches for one client
MAX_MARGIN_SECONDS = 30.0  # before the end of a token, from which it is not used
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750 §2.1


class _ClientToken:
    """The token of one client, or the fault of its last fetch. `lock` allows one fetch at a time."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.proof: ProofSettings | None = None
        self.token = ""
        self.usable_until = 0.0
        self.fetched_at = -math.inf
        self.fault = ""


class AccessTokens:
    """The access tokens of one worker, by client."""

    def __init__(self, steady: Clock) -> None:
        self._steady = steady
        self._clients: dict[ClientKey, _ClientToken] = {}

    async def get(self, client: Client, proof: ProofSettings) -> str:
        """Return a token, fetched now if there is none. Raises InternalFault if none can be fetched."""
        kept = self._clients.setdefault(client.key, _ClientToken())
        async with kept.lock:
            if kept.proof != proof:
                kept.proof, kept.token, kept.fault = proof, "", ""
            elapsed = self._steady() - kept.fetched_at
            if not kept.token or self._steady() >= kept.usable_until:
                if elapsed < FETCH_INTERVAL_SECONDS:
                    if kept.fault:
                        raise InternalFault(Cause.ACCESS_TOKEN, kept.fault)
                    await asyncio.sleep(FETCH_INTERVAL_SECONDS - elapsed)
                await self._fetch(kept, client, proof)
            return kept.token

    def renewal(self, client: Client, token: str) -> Callable[[], None]:
        """Return a function that drops this token, which the receiver has refused."""

        def drop() -> None:
            kept = self._clients.get(client.key)
            if kept is not None and kept.token == token:
                kept.token = ""

        return drop

    async def _fetch(self, kept: _ClientToken, client: Client, proof: ProofSettings) -> None:
        kept.fetched_at, kept.token, kept.fault = self._steady(), "", ""
        try:
            content = await _request_token(client, proof)
            kept.token, life = _read_token(content)
        except (NoAnswer, ConfigurationError, ValueError) as error:
            kept.fault = f"no access token for client {client.client_id} (proof.endpoint): {error}"
            raise InternalFault(Cause.ACCESS_TOKEN, kept.fault) from None
        kept.usable_until = kept.fetched_at + life - min(MAX_MARGIN_SECONDS, life / 2)


async def _request_token(client: Client, proof: ProofSettings) -> Any:
    """Return the JSON of the endpoint's answer. Raises NoAnswer, ConfigurationError (the secret), ValueError."""
    assert proof.endpoint is not None
    assert proof.client_id is not None
    assert proof.secret_file is not None
    secret = await asyncio.to_thread(read_secret, proof.secret_file)
    credentials = f"{quote_plus(proof.client_id)}:{quote_plus(secret)}".encode()  # RFC 6749 §2.3.1
    form = {"grant_type": "client_credentials"} | ({} if proof.scope is None else {"scope": proof.scope})
    route = client.route
    server = JsonClient(
        Bounds(answer=MAX_ANSWER_BYTES), TlsFiles(ca_file=route.tls.ca_file), egress=route.egress, proxy=route.proxy
    )
    headers = {"Authorization": f"Basic {base64.b64encode(credentials).decode()}"}
    try:
        answer = await server.ask("POST", proof.endpoint, headers, within=client.timeout, data=form)
    finally:
        await server.close()
    if answer.status != 200:
        raise ValueError(f"it answered {answer.status}")
    return answer.content


def _read_token(content: Any) -> tuple[str, float]:
    """Return the token of an answer and its life in seconds. Raises ValueError, without parts of the answer."""
    members = content if isinstance(content, dict) else {}
    token, kind, life = members.get("access_token"), members.get("token_type"), members.get("expires_in")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise ValueError("its answer has no token_type Bearer")
    if not isinstance(token, str) or len(token) > MAX_TOKEN_CHARACTERS or _TOKEN.fullmatch(token) is None:
        raise ValueError(f"its answer has no access_token of at most {MAX_TOKEN_CHARACTERS} permitted characters")
    if not isinstance(life, int | float) or isinstance(life, bool) or not life >= 0:  # NaN is not
        return token, DEFAULT_LIFE_SECONDS
    return token, float(min(life, MAX_LIFE_SECONDS))
