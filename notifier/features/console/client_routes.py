"""Serve lists of clients with their state at all workers, and one client with its last answers."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from heapq import merge
from itertools import chain, islice
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.configuration.loading import LoadedConfiguration
from notifier.configuration.provenance import sources_of, values_of
from notifier.feature import WorkerView
from notifier.features.console.all_workers import AllWorkers, collect_rows
from notifier.features.console.console_routes import STATES
from notifier.model.client import Client, ClientKey
from notifier.model.frozen import frozen
from notifier.model.moment import format_moment
from notifier.model.printable import json_text
from notifier.model.registry import Registry
from notifier.network.listeners.authorization import Authorization, permits_all_issuers, permits_issuer
from notifier.network.listeners.operation import (
    ApiOperation,
    ApiRequest,
    Counts,
    Document,
    Items,
    parse_answer,
    routes_of,
)
from notifier.network.listeners.problem import Refusal, problem_response
from notifier.operators.status.client_state import ClientState
from notifier.operators.status.status_document import client_document

CLIENTS_PER_PAGE = 40  # last answers of a client, from all workers
MAX_SORTED_CLIENTS = 2000  # names that are sorted at a time
NAMES_KEPT_SECONDS = 120.0  # seconds after the last use; the sorted names keep an old registry in memory


def registration_of(loaded: LoadedConfiguration, key: ClientKey) -> list[dict[str, Any]]:
    """Return the current values, each with member and origin. Takes one second with 100,000 clients."""
    if any(layer.rows for layer in loaded.layers):
        values = values_of(loaded, key, sources_of(loaded).get(key, ()))
        return [{"member": value.member, "value": value.value, "from": value.origin} for value in values]
    # The rows of a single file are not kept: a value that differs from that of a client without a row is the file's.
    bare = Client(iss=key[0], client_id=key[1], backchannel_logout_uri=None)
    rowless = replace(loaded, registry=replace(loaded.registry, clients={key[0]: {key[1]: bare}}))
    without = {value.member: value.value for value in values_of(rowless, key, ())}
    [source] = loaded.settings.registry.all_sources
    file = f"{source.source_name} ({source.file and source.file.name})"
    return [
        {
            "member": value.member,
            "value": value.value,
            "from": file if value.origin == "default" and without.get(value.member) != value.value else value.origin,
        }
        for value in values_of(loaded, key, ())
    ]


_STRICT = ConfigDict(extra="forbid")


@with_config(_STRICT)
class ClientsQuery(TypedDict, total=False):
    """The query of a list of clients."""

    q: Annotated[str, Field(max_length=200, description="Part of its client_id, name or address.")]
    iss: Annotated[str, Field(min_length=1, description="Only clients of this issuer.")]
    state: Annotated[
        Literal["rests", "tried", "hangs", "fails", "put_off", "well", "troubled"],
        Field(description="Only clients in this state. `troubled`: all that are not well."),
    ]
    order: Annotated[Literal["urgency", "name", "waits"], Field(description="The sort order.")]
    rows: Annotated[int, Field(ge=1, le=200)]
    skip: Annotated[int, Field(ge=0, le=1_000_000)]


@with_config(_STRICT)
class ClientQuery(TypedDict):
    """The client, in the query because a path cannot contain `..`."""

    client_id: str
    iss: str


class ClientNames:
    """The registered clients by name, each with its searchable text.

    They are sorted once per registry, and cached while in use.
    """

    def __init__(self) -> None:
        self._registry: Registry | None = None
        self._texts: Mapping[ClientKey, str] = {}
        self._forget: asyncio.TimerHandle | None = None

    async def get(self, registry: Registry) -> Mapping[ClientKey, str]:
        """Return the texts by name. Sorting 100,000 takes 0.5 s in a thread."""
        if registry is not self._registry:
            self._texts = await asyncio.to_thread(_sort_names, registry)
            self._registry = registry
        if self._forget is not None:
            self._forget.cancel()
        self._forget = asyncio.get_running_loop().call_later(NAMES_KEPT_SECONDS, self._drop)
        return self._texts

    def _drop(self) -> None:
        self._registry, self._texts = None, {}


def _sort_names(registry: Registry) -> Mapping[ClientKey, str]:
    texts = (
        (f"{client_id}\n{client.client_name or ''}\n{client.logout_uri or ''}".casefold(), (iss, client_id))
        for iss, clients in registry.clients.items()
        for client_id, client in clients.items()
    )
    # Sorting 100,000 at once would block the event loop, even from another thread.
    parts = [sorted(part) for part in iter(lambda: list(islice(texts, MAX_SORTED_CLIENTS)), [])]
    return {key: text for text, key in merge(*parts)}


class ClientRoutes:
    """The routes."""

    def __init__(self, authorization: Authorization, view: WorkerView, workers: AllWorkers) -> None:
        self._authorization = authorization
        self._view = view
        self._workers = workers
        self._names = ClientNames()
        self._choosing = asyncio.Lock()  # one thread at a time: several would delay the event loop

    def routes(self) -> list[web.RouteDef]:
        """Return the routes that the API serves."""
        return routes_of(self, self._authorization)

    @ApiOperation(
        route="GET /v1/clients",
        summary="Show a page of clients with their state, most trouble first.",
        scope="read",
        query=ClientsQuery,
        answers={
            200: parse_answer("The page.", at=str, workers=Counts, states=Counts, total=int, skip=int, clients=Items)
        },
    )
    async def _clients(self, request: ApiRequest) -> web.Response:
        overview = await self._workers.overview()
        states = {(client.iss, client.client_id): client for client in overview.status.clients}
        async with self._choosing:
            texts = await self._names.get(self._view.live.registry())
            page = await asyncio.to_thread(_page_of, request, texts, states)
        if missing := [key for key in page.keys if key not in states]:
            status, _ = await self._workers.clients(missing)
            states |= {(client.iss, client.client_id): client for client in status.clients}
        document = {
            "at": format_moment(time.time()),
            "workers": {"seen": overview.seen, "answered": overview.answered},
            "states": page.states,
            "total": page.total,
            "skip": request.members.get("skip", 0),
            "clients": [self._row(key, states.get(key)) for key in page.keys],
        }
        return web.json_response(document, dumps=json_text)

    @ApiOperation(
        route="GET /v1/client",
        summary="Show one client: its state at each worker, its last answers, and its deliveries by the minute.",
        scope="read",
        query=ClientQuery,
        answers={200: parse_answer("The client.", at=str, client=Document, left_out=str | None, workers=Items,
            answers=Items, minutes=list[list[int]])},
        problems={404: "No worker has this client."},
    )  # fmt: skip
    async def _client(self, request: ApiRequest) -> web.Response:
        key = _requested_client(request)
        registry = self._view.live.registry()
        status, answers = await self._workers.clients([key], answers_of=key)
        state = next(iter(status.clients), None)
        left_out = registry.why_left_out(*key)
        registered = key[1] in registry.clients_of(key[0])
        if not registered and left_out is None and (state is None or not _has_state(state)):
            raise Refusal(problem_response(404, "No worker has this client"))
        minutes: dict[int, Counter[str]] = {}
        for minute, delivered, failed in (minute for answer in answers for minute in answer.result.get("minutes", ())):
            minutes.setdefault(minute, Counter()).update({"well": delivered, "failed": failed})
        document = {
            "at": format_moment(time.time()),
            "client": self._row(key, state),
            "left_out": left_out,
            "workers": [
                {"worker": worker.worker, **client_document(client)}
                for worker in status.workers
                for client in worker.clients
            ],
            "answers": collect_rows(answers, "answers")[::-1][:CLIENTS_PER_PAGE],
            "minutes": [
                [minute * 60, minutes[minute]["well"], minutes[minute]["failed"]] for minute in sorted(minutes)
            ],
        }
        return web.json_response(document, dumps=json_text)

    @ApiOperation(
        route="GET /v1/client/registration",
        summary="Show the registration of a client that is in force, with the origin of each value.",
        scope="read",
        query=ClientQuery,
        answers={200: parse_answer("Member, value and origin, without secrets.", values=Items)},
        problems={404: "No client of this name is in force."},
    )
    async def _registration(self, request: ApiRequest) -> web.Response:
        key = _requested_client(request)
        loaded = self._view.live.current
        if key[1] not in loaded.registry.clients_of(key[0]):
            raise Refusal(problem_response(404, "No client of this name is in force"))
        async with self._choosing:
            values = await asyncio.to_thread(registration_of, loaded, key)
        return web.json_response({"values": values}, dumps=json_text)

    def _row(self, key: ClientKey, state: ClientState | None) -> dict[str, object]:
        client: Client | None = self._view.live.registry().clients_of(key[0]).get(key[1])
        state = state or ClientState(iss=key[0], client_id=key[1])
        return client_document(state) | {
            "name": None if client is None else client.client_name,
            "uri": None if client is None else client.logout_uri,
            "registered": client is not None,
            "paused": client is not None and client.paused,
            "tried": (state.last_success or state.last_failure) is not None,
        }


def _requested_client(request: ApiRequest) -> ClientKey:
    """Return the requested client. Raises Refusal (403)."""
    iss, client_id = request.members["iss"], request.members["client_id"]
    request.require_issuer(iss)
    return iss, client_id


@frozen
class _Page:
    """A page of clients. `states`: the number of matches per state; `total`: the matches with the requested `state`."""

    states: Mapping[str, int]
    total: int
    keys: Sequence[ClientKey]


def _page_of(request: ApiRequest, texts: Mapping[ClientKey, str], troubled: Mapping[ClientKey, ClientState]) -> _Page:
    """Return the page of clients. Runs in a thread. Clients not in `troubled` are well, and sorted by name."""
    asked, token = request.members, request.token
    text, iss, wanted = asked.get("q", "").casefold(), asked.get("iss"), asked.get("state")

    def is_match(key: ClientKey) -> bool:
        """Return whether the query matches the client, which may be unregistered."""
        return iss in (None, key[0]) and permits_issuer(token, key[0]) and text in texts.get(key, key[1].casefold())

    def has_state(state: str) -> bool:
        return wanted in (None, state) or (wanted == "troubled" and state != "well")

    whole = not text and iss is None and permits_all_issuers(token)
    named = texts if whole else list(filter(is_match, texts))
    in_trouble = {key: state for key, state in troubled.items() if is_match(key)}
    counts: Counter[str] = Counter(state.state for state in in_trouble.values())
    well_count = len(named) - sum(key in texts for key in in_trouble)
    counts["well"] += well_count
    found = [key for key, state in in_trouble.items() if has_state(state.state)]
    silent = (key for key in named if key not in in_trouble) if has_state("well") else iter(())
    total = len(found) + (well_count if has_state("well") else 0)
    keys: Iterable[ClientKey]
    if asked.get("order") == "name":
        keys = merge(sorted(found, key=_name), silent, key=_name)
    else:
        by_waits = asked.get("order") == "waits"
        found.sort(
            key=lambda key: (
                0 if by_waits else STATES.index(in_trouble[key].state),
                -in_trouble[key].pending_count,
                *_name(key),
            )
        )
        keys = chain(found, silent)
    skip = asked.get("skip", 0)
    page = list(islice(keys, skip, skip + asked.get("rows", 50)))
    return _Page(states={state: counts[state] for state in STATES}, total=total, keys=page)


def _name(key: ClientKey) -> tuple[str, str]:
    return key[1].casefold(), key[0]


def _has_state(state: ClientState) -> bool:
    """Return whether a worker has recorded anything about the client."""
    return bool(state.pending_count or state.delivered or state.dead or state.put_off or state.last_failure)
