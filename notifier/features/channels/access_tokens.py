"""Fetches the access tokens that some receivers require, by client credentials (RFC 6749 §4.4).

The token endpoint is not trusted: the request follows the client's egress rules and no redirect, and only a short
Bearer token is used. A token is kept in memory until shortly before its end, and is neither stored nor logged. If none
can be fetched, the deliveries of this client are deferred: the client did not cause it. A delivery that waits uses a
slot, so it waits for a hanging endpoint for a second at most. A slow endpoint is awaited for twice as long as it took
last, since a delivery may return when the token of its own fetch is too old.
"""

import asyncio
import base64
import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import quote_plus

from notifier.features.channels.channel_settings import ProofSettings
from notifier.model.client import Client, ClientKey, TlsFiles
from notifier.model.errors import ConfigurationError, InternalFault
from notifier.model.moment import Clock
from notifier.model.outcome import Cause
from notifier.model.own_thread import read_in_thread
from notifier.network.http.json_client import JsonClient, NoAnswer
from notifier.network.http.json_parts import Bounds
from notifier.settings.secret_text import read_secret

MAX_ANSWER_BYTES = 64 * 1024
MAX_TOKEN_CHARACTERS = 8 * 1024
MAX_LIFE_SECONDS, DEFAULT_LIFE_SECONDS = 86_400.0, 60.0
FORGET_SECONDS = 3600.0  # after the end of a token: much later than a delivery returns after a fault
FETCH_INTERVAL_SECONDS = 1.0  # at least, between two fetches for one client
MIN_WAIT_SECONDS, WAIT_FACTOR = 1.0, 2.0  # for which deliveries wait: at least, and × the time of the last token
MAX_MARGIN_SECONDS = 30.0  # before the end of a token, from which it is not used
_REMEDIES: Mapping[str, str] = {  # of RFC 6749 §5.2; any other code may be a secret
    "invalid_request": "look at its log",
    "invalid_client": "correct proof.client_id or its secret",
    "invalid_grant": "look at its log",
    "unauthorized_client": "permit client credentials for proof.client_id there",
    "unsupported_grant_type": "correct proof.endpoint, or permit client credentials there",
    "invalid_scope": "correct proof.scope",
}
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750 §2.1


class _ClientToken:
    """The last fetch for one client: its task returns the token and the fault, one of which is empty.

    The result is used until `usable_until`; a fault, for less than FETCH_INTERVAL_SECONDS. `answer_seconds`: how long
    the endpoint took for the last token; 0 after a fault. `awaited_until`: when deliveries stop waiting for the fetch.
    """

    def __init__(self, proof: ProofSettings, fetched_at: float, answer_seconds: float) -> None:
        self.proof = proof
        self.fetched_at = fetched_at
        self.answer_seconds = answer_seconds
        self.awaited_until = -math.inf
        self.fetch: asyncio.Task[tuple[str, str]] | None = None
        self.token = ""
        self.usable_until = -math.inf


class AccessTokens:
    """The access tokens of one worker, by client."""

    def __init__(self, monotonic: Clock, min_wait_seconds: float = MIN_WAIT_SECONDS) -> None:
        self._monotonic = monotonic
        self._min_wait_seconds = min_wait_seconds
        self._clients: dict[ClientKey, _ClientToken] = {}
        self._forget_at = -math.inf

    async def get(self, client: Client, proof: ProofSettings) -> str:
        """Return a token, fetched now if there is none. Raises InternalFault if none is fetched soon.

        All deliveries of a client await one fetch and share its result, whichever of them ends before.
        """
        kept = self._clients.get(client.key)
        if kept is None or kept.proof != proof:
            self._forget_unused()
            kept = _ClientToken(proof, -math.inf if kept is None else kept.fetched_at, client.timeout)
            self._clients[client.key] = kept
        fetch = kept.fetch
        if fetch is None or (fetch.done() and self._monotonic() >= kept.usable_until):
            fetch = self._start_fetch(kept, client)
        if not fetch.done():
            await asyncio.wait([fetch], timeout=kept.awaited_until - asyncio.get_running_loop().time())
        token, fault = fetch.result() if fetch.done() else ("", _describe_fault(client, "it has not answered yet"))
        if fault:
            raise InternalFault(Cause.ACCESS_TOKEN, fault)
        return token

    def _forget_unused(self) -> None:
        """Forget tokens that have not been used for long, once an hour: their clients may be removed."""
        now = self._monotonic()
        if now >= self._forget_at:
            self._forget_at, oldest = now + FORGET_SECONDS, now - FORGET_SECONDS
            items = self._clients.items()
            self._clients = {key: kept for key, kept in items if max(kept.fetched_at, kept.usable_until) > oldest}

    def _start_fetch(self, kept: _ClientToken, client: Client) -> asyncio.Task[tuple[str, str]]:
        pause = max(0.0, kept.fetched_at + FETCH_INTERVAL_SECONDS - self._monotonic())
        wait = pause + max(self._min_wait_seconds, WAIT_FACTOR * kept.answer_seconds)
        kept.awaited_until = asyncio.get_running_loop().time() + wait
        kept.fetch = asyncio.create_task(self._fetch(kept, client, pause))
        return kept.fetch

    def renewal(self, client: Client, token: str) -> Callable[[], None]:
        """Return a function that drops this token, which the receiver has refused."""

        def drop() -> None:
            kept = self._clients.get(client.key)
            if kept is not None and kept.token == token:
                kept.usable_until = -math.inf

        return drop

    async def _fetch(self, kept: _ClientToken, client: Client, pause: float) -> tuple[str, str]:
        """Fetch a token within the client's timeout, which includes the pause after the last fetch."""
        until = asyncio.get_running_loop().time() + client.timeout
        try:
            async with asyncio.timeout_at(until):
                await asyncio.sleep(pause)
                kept.fetched_at = self._monotonic()
                credentials = await read_in_thread(str(kept.proof.secret_file), partial(_read_credentials, kept.proof))
            kept.token, life = _read_token(await _request_token(client, kept.proof, credentials, until))
        except (NoAnswer, ConfigurationError, ValueError, TimeoutError) as error:
            text = str(error) or f"not requested within {client.timeout:g} s"
            kept.usable_until, kept.answer_seconds = kept.fetched_at + FETCH_INTERVAL_SECONDS, 0.0
            return "", _describe_fault(client, text)
        kept.answer_seconds = self._monotonic() - kept.fetched_at
        kept.usable_until = kept.fetched_at + life - min(MAX_MARGIN_SECONDS, life / 2)
        return kept.token, ""


def _describe_fault(client: Client, problem: str) -> str:
    return f"no access token for client {client.client_id} (proof.endpoint): {problem}"


def _read_credentials(proof: ProofSettings) -> str:
    """Return the credentials for HTTP Basic authentication (RFC 6749 §2.3.1). Raises ConfigurationError."""
    assert proof.client_id is not None
    assert proof.secret_file is not None
    pair = f"{quote_plus(proof.client_id)}:{quote_plus(read_secret(proof.secret_file))}"
    return base64.b64encode(pair.encode()).decode()


async def _request_token(client: Client, proof: ProofSettings, credentials: str, until: float) -> Any:
    """Return the JSON of the endpoint's answer. Raises NoAnswer, ValueError. `until`: a time of the loop."""
    assert proof.endpoint is not None
    form = {"grant_type": "client_credentials"} | ({} if proof.scope is None else {"scope": proof.scope})
    route = client.route
    server = JsonClient(
        Bounds(answer=MAX_ANSWER_BYTES), TlsFiles(ca_file=route.tls.ca_file), egress=route.egress, proxy=route.proxy
    )
    headers, within = {"Authorization": f"Basic {credentials}"}, until - asyncio.get_running_loop().time()
    try:
        answer = await server.ask("POST", proof.endpoint, headers, within=within, data=form)
    finally:
        await server.close()
    if answer.status != 200:
        code = answer.content.get("error") if isinstance(answer.content, dict) else None
        remedy = f" {code}: {_REMEDIES[code]}" if isinstance(code, str) and code in _REMEDIES else ""
        raise ValueError(f"it answered {answer.status}{remedy}")
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
