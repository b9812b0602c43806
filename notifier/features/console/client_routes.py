"""Serve the console's clients: a page of them with their state at all workers, and one with its last answers."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from heapq import merge
from itertools import chain, islice
from typing import Annotated, Any, Literal
from weakref import ref

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.configuration.loading import LoadedConfiguration
from notifier.configuration.provenance import values_in_force
from notifier.feature import WorkerView
from notifier.features.console.all_workers import AllWorkers, collect_rows
from notifier.features.console.console_routes import STATES
from notifier.model.client import Client, ClientKey
from notifier.model.moment import format_moment
from notifier.model.own_thread import run_in_thread
from notifier.model.record import record
from notifier.model.registry import Registry
from notifier.model.shared_resources import shared_lock
from notifier.network.listeners.authorization import permits_all_issuers, permits_issuer
from notifier.network.listeners.operation import (
    ApiOperation,
    ApiRequest,
    Counts,
    Document,
    Items,
    to_answer,
)
from notifier.network.listeners.problem import Refusal, problem_response
from notifier.operators.status.client_status import ClientStatus
from notifier.operators.status.status_document import client_document
from notifier.operators.status.worker_requests import WorkerAnswer

MAX_SHOWN_ANSWERS = 40  # last answers of a client, from all workers
SORTED_CLIENTS_PER_STEP = 2000  # a sort holds Python's interpreter lock, which blocks the event loop
NAMES_CACHE_SECONDS = 120.0  # after the last use


def registration_of(loaded: LoadedConfiguration, key: ClientKey) -> list[dict[str, Any]]:
    """Return the values of a client that are in force: member, value and origin. Takes 1 s with 100,000 clients."""
    values = values_in_force(loaded, key)
    return [{"member": value.member, "value": value.value, "from": value.origin} for value in values]


_STRICT = ConfigDict(extra="forbid")


@with_config(_STRICT)
class ClientsQuery(TypedDict, total=False):
    """The query of a list of clients."""

    q: Annotated[str, Field(max_length=200, description="Part of its client_id, name or address.")]
    iss: Annotated[str, Field(min_length=1, description="Only clients of this issuer.")]
    state: Annotated[
        Literal["rests", "tried", "hangs", "fails", "put_off", "paused", "well", "troubled"],
        Field(description="Only clients in this state. `troubled`: all that are not well."),
    ]
    order: Annotated[Literal["urgency", "name", "waits"], Field(description="The sort order.")]
    rows: Annotated[int, Field(ge=1, le=200)]
    skip: Annotated[int, Field(ge=0, le=1_000_000)]


@with_config(_STRICT)
class ClientQuery(TypedDict):
    """The client. It is in the query, since a client ID may be `..`, which a path cannot contain."""

    client_id: str
    iss: str


class ClientNames:
    """Caches the registered clients, sorted by name, each with the text in which the console searches.

    They are sorted once per registry, and dropped NAMES_CACHE_SECONDS after the last use.
    """

    def __init__(self) -> None:
        self._registry: ref[Registry] | None = None
        self._texts: Mapping[ClientKey, str] = {}
        self._drop_timer: asyncio.TimerHandle | None = None

    async def get(self, registry: Registry) -> Mapping[ClientKey, str]:
        """Return the text of each client, sorted by name. Sorting 100,000 takes 0.5 s in a thread."""
        if self._registry is None or registry is not self._registry():
            self._texts = await run_in_thread(partial(_sort_names, registry), "names of clients")
            self._registry = ref(registry)
        if self._drop_timer is not None:
            self._drop_timer.cancel()
        self._drop_timer = asyncio.get_running_loop().call_later(NAMES_CACHE_SECONDS, self._drop)
        return self._texts

    def _drop(self) -> None:
        self._registry, self._texts = None, {}


def _sort_names(registry: Registry) -> Mapping[ClientKey, str]:
    texts = (
        (f"{client_id}\n{client.client_name or ''}\n{client.logout_uri or ''}".casefold(), (iss, client_id))
        for iss, clients in registry.clients.items()
        for client_id, client in clients.items()
    )
    sorted_parts = []
    while part := list(islice(texts, SORTED_CLIENTS_PER_STEP)):
        sorted_parts.append(sorted(part))
    return {key: text for text, key in merge(*sorted_parts)}


class ClientRoutes:
    """The routes of clients. `view` is this worker, `workers` collects the data of all workers."""

    def __init__(self, view: WorkerView, workers: AllWorkers) -> None:
        self._view = view
        self._workers = workers
        self._names = ClientNames()
        self._thread_lock = shared_lock()  # one thread at a time: several would delay the event loop

    @ApiOperation(
        route="GET /v1/clients",
        summary="Show a page of clients with their state, most trouble first.",
        scope="read",
        query=ClientsQuery,
        answers={
            200: to_answer("The page.", at=str, workers=Counts, states=Counts, total=int, skip=int, clients=Items)
        },
    )
    async def _clients(self, request: ApiRequest) -> Document:
        overview = await self._workers.overview()
        states = {(client.iss, client.client_id): client for client in overview.status.clients}
        async with self._thread_lock:
            texts = await self._names.get(self._view.live.registry())
            page = await run_in_thread(partial(_choose_page, request, texts, states), "page of clients")
        missing = [key for key in page.keys if key not in states]
        if missing:
            status, _ = await self._workers.clients(missing)
            states |= {(client.iss, client.client_id): client for client in status.clients}
        return {
            "at": format_moment(time.time()),
            "workers": {"seen": overview.seen, "answered": overview.answered},
            "states": page.states,
            "total": page.total,
            "skip": request.members.get("skip", 0),
            "clients": [self._to_row(key, states.get(key)) for key in page.keys],
        }

    @ApiOperation(
        route="GET /v1/client",
        summary="Show one client: its state at each worker, its last answers, and its deliveries by the minute.",
        scope="read",
        query=ClientQuery,
        answers={200: to_answer("The client.", at=str, client=Document, left_out=str | None, workers=Items,
            answers=Items, minutes=list[list[int]])},
        problems={404: "No worker has this client."},
    )  # fmt: skip
    async def _client(self, request: ApiRequest) -> Document:
        key = _requested_client(request)
        registry = self._view.live.registry()
        status, answers = await self._workers.clients([key], answers_of=key)
        state = next(iter(status.clients), None)
        left_out = registry.why_left_out(*key)
        is_registered = key[1] in registry.clients_of(key[0])
        is_recorded = state is not None and _has_records(state)
        if not (is_registered or left_out is not None or is_recorded):
            raise Refusal(problem_response(404, "No worker has this client"))
        return {
            "at": format_moment(time.time()),
            "client": self._to_row(key, state),
            "left_out": left_out,
            "workers": [
                {"worker": worker.worker, **client_document(client)}
                for worker in status.workers
                for client in worker.clients
            ],
            "answers": collect_rows(answers, "answers")[::-1][:MAX_SHOWN_ANSWERS],
            "minutes": _sum_minutes(answers),
        }

    @ApiOperation(
        route="GET /v1/client/registration",
        summary="Show the registration of a client that is in force, with the origin of each value.",
        scope="read",
        query=ClientQuery,
        answers={200: to_answer("Member, value and origin, without secrets.", values=Items)},
        problems={404: "No client of this name is in force."},
    )
    async def _registration(self, request: ApiRequest) -> Document:
        key = _requested_client(request)
        loaded = self._view.live.current
        if key[1] not in loaded.registry.clients_of(key[0]):
            raise Refusal(problem_response(404, "No client of this name is in force"))
        async with self._thread_lock:
            values = await run_in_thread(partial(registration_of, loaded, key), "registration of a client")
        return {"values": values}

    def _to_row(self, key: ClientKey, state: ClientStatus | None) -> dict[str, object]:
        client: Client | None = self._view.live.registry().clients_of(key[0]).get(key[1])
        state = ClientStatus(iss=key[0], client_id=key[1]) if state is None else state
        return client_document(state) | {
            "name": None if client is None else client.client_name,
            "uri": None if client is None else client.logout_uri,
            "registered": client is not None,
            "paused": client is not None and client.paused,
            "follows": None if client is None else client.follows,
            "tried": (state.last_success or state.last_failure) is not None,
        }


def _sum_minutes(answers: Sequence[WorkerAnswer]) -> list[list[int]]:
    """Return all workers' counts of a client by minute: epoch seconds, deliveries, failures."""
    counts: dict[int, list[int]] = {}
    for answer in answers:
        for minute, delivered, failed in answer.result.get("minutes", ()):
            delivered_before, failed_before = counts.get(minute, (0, 0))
            counts[minute] = [delivered_before + delivered, failed_before + failed]
    return [[minute * 60, *counts[minute]] for minute in sorted(counts)]


def _requested_client(request: ApiRequest) -> ClientKey:
    """Return the requested client. Raises Refusal (403) if the token does not cover its issuer."""
    iss, client_id = request.members["iss"], request.members["client_id"]
    request.require_issuer(iss)
    return iss, client_id


@record
class _Page:
    """A page of clients. `states`: the number of matches per state; `total`: the matches with the requested `state`."""

    states: Mapping[str, int]
    total: int
    keys: Sequence[ClientKey]


def _choose_page(
    request: ApiRequest, texts: Mapping[ClientKey, str], recorded: Mapping[ClientKey, ClientStatus]
) -> _Page:
    """Return the requested page of clients. Runs in a thread.

    `texts`: of registered clients, sorted by name. `recorded`: clients of which a worker has a state. Others are well.
    """
    query, token = request.members, request.token
    text, iss, wanted = query.get("q", "").casefold(), query.get("iss"), query.get("state")

    def is_match(key: ClientKey) -> bool:
        """Return whether the text, issuer and token cover the client, which may be unregistered."""
        return iss in (None, key[0]) and permits_issuer(token, key[0]) and text in texts.get(key, key[1].casefold())

    def is_wanted(state: str) -> bool:
        return wanted in (None, state) or (wanted == "troubled" and state != "well")

    is_unfiltered = not text and iss is None and permits_all_issuers(token)
    registered = texts if is_unfiltered else list(filter(is_match, texts))
    matches = {key: state for key, state in recorded.items() if is_match(key)}
    counts: Counter[str] = Counter(state.state for state in matches.values())
    unrecorded_count = len(registered) - sum(key in texts for key in matches)
    counts["well"] += unrecorded_count
    chosen = [key for key, state in matches.items() if is_wanted(state.state)]
    total = len(chosen)
    unrecorded: Iterable[ClientKey] = ()
    if is_wanted("well"):
        total += unrecorded_count
        unrecorded = (key for key in registered if key not in matches)
    keys = _sort_keys(chosen, unrecorded, matches, query.get("order"))
    skip = query.get("skip", 0)
    page = list(islice(keys, skip, skip + query.get("rows", 50)))
    return _Page(states={state: counts[state] for state in STATES}, total=total, keys=page)


def _sort_keys(
    chosen: Sequence[ClientKey], well: Iterable[ClientKey], states: Mapping[ClientKey, ClientStatus], order: str | None
) -> Iterable[ClientKey]:
    """Return all clients by name, by pending deliveries, or (default) worst state first. `well` is sorted by name."""
    if order == "name":
        return merge(sorted(chosen, key=_to_name), well, key=_to_name)
    if order == "waits":
        return chain(sorted(chosen, key=lambda key: (-states[key].pending_count, *_to_name(key))), well)
    rank = {key: (STATES.index(states[key].state), -states[key].pending_count, *_to_name(key)) for key in chosen}
    return chain(sorted(chosen, key=rank.__getitem__), well)


def _to_name(key: ClientKey) -> tuple[str, str]:
    return key[1].casefold(), key[0]


def _has_records(state: ClientStatus) -> bool:
    """Return whether a worker has recorded anything about the client."""
    return bool(state.pending_count or state.delivered or state.dead or state.put_off or state.last_failure)
