"""Serve the console's part of the API: the token's permissions, an overview, recent entries, keys, explanations.

Each response covers all workers. A token for some issuers receives data of these issuers only, and no text that may
name others.
"""

import time
from collections import Counter
from functools import partial
from typing import Annotated, Any

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier import __version__
from notifier.feature import WorkerView
from notifier.features.console.all_workers import AllWorkers, collect_rows
from notifier.features.console.recent import SERIES, STEP_SECONDS
from notifier.model.errors import InputIssue
from notifier.model.message import PARKED, Lane
from notifier.model.moment import format_optional_moment
from notifier.model.record import copy_record
from notifier.network.listeners.authorization import permits_all_issuers, permits_issuer
from notifier.network.listeners.operation import (
    ApiOperation,
    ApiRequest,
    Counts,
    Document,
    Items,
    to_answer,
)
from notifier.network.listeners.problem import Refusal, malformed_refusal, problem_response
from notifier.operators.doctor.manual import parse_sections
from notifier.operators.status.service_status import ServiceStatus, count_delayed, count_held_messages, seen_keys_of
from notifier.operators.status.status_document import document_of
from notifier.telemetry.audit import write_audit
from notifier.telemetry.logs import subject_id

STATES = ("rests", "tried", "hangs", "fails", "put_off", "paused", "well")
"""The states of a client, worst first."""
MAX_URGENT_CLIENTS = 12  # in an overview
MAX_KEPT_POSITIONS = 20  # of workers that do not answer
_STRICT = ConfigDict(extra="forbid")


@with_config(_STRICT)
class OverviewQuery(TypedDict, total=False):
    """The query of an overview."""

    since: Annotated[int, Field(ge=0, description="Counts from this step on. A step is five seconds since the epoch.")]


@with_config(_STRICT)
class RecentQuery(TypedDict, total=False):
    """The query of recent entries."""

    after: Annotated[str, Field(max_length=4000, description="`next` of the answer before.")]
    good: Annotated[bool, Field(description="With deliveries that went well.")]


@with_config(_STRICT)
class FindBody(TypedDict, total=False):
    """The search, in a body because proxies log addresses."""

    subject: Annotated[str, Field(min_length=1, max_length=1000, description="A `sub` or `sid`.")]
    event_id: Annotated[str, Field(min_length=1, max_length=1000, description="An event.")]


class ConsoleRoutes:
    """The routes. `view` is this worker, `workers` collects the data of all workers."""

    def __init__(self, view: WorkerView, workers: AllWorkers) -> None:
        self._view = view
        self._workers = workers
        self._subject_id = subject_id(view.live.current.settings)

    @ApiOperation(
        route="GET /v1/whoami",
        summary="Return the token's name and permissions.",
        scope="read",
        answers={200: to_answer("Name, scopes, issuers.", name=str, scopes=list[str], issuers=list[str] | None,
            open=bool, version=str, issuers_known=list[str])},
    )  # fmt: skip
    async def _whoami(self, request: ApiRequest) -> Document:
        """Describe the token. Without tokens (loopback) a page has only `read`: the API rejects changes by browsers."""
        token = request.token
        return {
            "name": request.who,
            "scopes": ["read"] if token is None else sorted(token.scopes),
            "issuers": _sort_issuers(request.issuers),
            "open": token is None,
            "version": __version__,
            "issuers_known": [iss for iss in self._view.live.registry().issuers if permits_issuer(token, iss)],
        }

    @ApiOperation(
        route="GET /v1/overview",
        summary="Return the state of the service, at most a page, whatever the number of clients.",
        scope="read",
        query=OverviewQuery,
        answers={200: to_answer("The state.", at=str, queues=Document, rates=Document, workers=Document,
            clients=Items, states=Counts, waits=Counts, timeline=Document)},
    )  # fmt: skip
    async def _overview(self, request: ApiRequest) -> Document:
        """Return the merged state of all workers, with the most urgent clients and the counts of the timeline."""
        token, since = request.token, request.members.get("since", 0)
        overview = await self._workers.overview()
        status, registry = overview.status, self._view.live.registry()
        clients = [client for client in status.clients if permits_issuer(token, client.iss)]
        states = Counter(dict.fromkeys(STATES, 0))
        states.update(client.state for client in clients)
        # A registered client of which no worker has a state is well.
        states["well"] += sum(len(registry.clients_of(iss)) for iss in registry.issuers if permits_issuer(token, iss))
        states["well"] -= sum(client.client_id in registry.clients_of(client.iss) for client in clients)
        troubled = [client for client in clients if client.state != "well"]
        status = copy_record(status, seen=overview.seen, clients=troubled[:MAX_URGENT_CLIENTS])
        issuer_filter = None if permits_all_issuers(token) else partial(permits_issuer, token)
        known_pending = sum(client.pending_count for client in clients)
        return document_of(status, issuer_filter) | {
            "states": states,
            "waits": {"all": max(_count_pending(overview.status), known_pending), "known": known_pending},
            "timeline": {
                "step": STEP_SECONDS,
                "now": int(time.time()) // STEP_SECONDS,
                "series": SERIES,
                "steps": [step for step in overview.steps if step[0] >= since],
            },
        }

    @ApiOperation(
        route="GET /v1/recent",
        summary="Return what happened since an earlier answer: failures, outages, dead letters.",
        scope="read",
        query=RecentQuery,
        answers={200: to_answer("The newest facts of all workers.", facts=Items, next=str)},
    )
    async def _recent(self, request: ApiRequest) -> Document:
        """Return the entries of all workers since the positions in `after`, and the positions to continue from."""
        after = _parse_positions(request.members.get("after", ""))
        seen, answers = await self._workers.ask(
            request.who, after=after, well=bool(request.members.get("good")), issuers=_sort_issuers(request.issuers)
        )
        positions = {answer.worker: answer.result.get("last", 0) for answer in answers}
        if len(answers) < seen:  # a worker that did not answer in time keeps its position
            unanswered = [worker for worker in after if worker not in positions]
            positions |= {worker: after[worker] for worker in unanswered[:MAX_KEPT_POSITIONS]}
        return {
            "facts": collect_rows(answers),
            "next": ",".join(f"{worker}={number}" for worker, number in positions.items()),
        }

    @ApiOperation(
        route="POST /v1/find",
        summary="Return the workers' records of an event, or of the logouts of a user or session. It is audited.",
        scope="read",
        body=FindBody,
        answers={200: to_answer("Attempts and fates, the oldest first.", facts=Items, remembered_since=str | None)},
    )
    async def _find(self, request: ApiRequest) -> Document:
        """Search the workers' recent entries. The audit log records the search with a hash of the user."""
        criteria = request.members
        if len(criteria) != 1:
            raise malformed_refusal(InputIssue("", "give either subject or event_id"))
        subject = self._subject_id(criteria["subject"]) if "subject" in criteria else None
        write_audit("looked_for", who=request.who, event_id=criteria.get("event_id"), subject=subject)
        _, answers = await self._workers.ask(request.who, find=criteria, issuers=_sort_issuers(request.issuers))
        return {
            "facts": collect_rows(answers),
            "remembered_since": format_optional_moment(
                max((answer.result["since"] for answer in answers), default=None)
            ),
        }

    @ApiOperation(
        route="GET /v1/keys",
        summary="Return the current and future signing keys, and whether each issuer publishes them.",
        scope="read",
        answers={200: to_answer("By issuer.", keys=Items)},
    )
    async def _keys(self, request: ApiRequest) -> Document:
        """Return a row for each key and use, with its algorithms, and since when the issuer publishes it."""
        live, seen = self._view.live, seen_keys_of((await self._workers.overview()).status)
        published = {(iss, kid): is_published for iss, kid, is_published in self._view.published()}
        rows: dict[tuple[str, str, str], dict[str, Any]] = {}
        for iss in live.registry().issuers:
            if not permits_issuer(request.token, iss):
                continue
            for use, keys in (("signs", live.current_keys(iss)), ("comes", live.future_keys(iss))):
                for key in keys:
                    kid = key.public["kid"]
                    since = seen.get((iss, kid))
                    row: dict[str, Any] = {
                        "iss": iss,
                        "kid": kid,
                        "algs": list[str](),
                        "use": use,
                        "published": published.get((iss, kid)),
                        "made_at": format_optional_moment(key.made_at),
                        "published_since": None if since is None else format_optional_moment(since.since),
                    }
                    rows.setdefault((iss, kid, use), row)["algs"].append(str(key.alg))
        return {"keys": [*rows.values()]}

    @ApiOperation(
        route="GET /v1/explain/{name}",
        summary="Explain a reason, a cause or an alert: its section of the runbook.",
        scope="read",
        answers={200: to_answer("Markdown.", name=str, group=str, text=str)},
        problems={404: "There is no such name."},
    )
    async def _explain(self, request: ApiRequest) -> Document:
        section = parse_sections().get(request.path["name"].lower())
        if section is None:
            raise Refusal(problem_response(404, "There is no such name"))
        return {"name": section.name, "group": section.group, "text": section.text}


def _parse_positions(text: str) -> dict[str, int]:
    """Return each worker's last number of `worker=number,…`. Raises Refusal (400). Worker names may contain `=`."""
    positions = [position.rpartition("=") for position in text.split(",") if position]
    if not all(number.isdecimal() for _, _, number in positions):
        raise malformed_refusal(InputIssue("after", "must be `next` of an answer before"))
    return {worker: int(number[:15]) for worker, _, number in positions}  # 15 digits: exact in JSON


def _count_pending(status: ServiceStatus) -> int:
    """Return the number of pending messages from the queues' depths. It includes those of earlier workers."""
    ready = (status.depths[name].ready for name in (PARKED, Lane.RETRIES) if name in status.depths)
    return sum(ready) + count_delayed(status) + count_held_messages(status, Lane.RETRIES)


def _sort_issuers(issuers: frozenset[str] | None) -> list[str] | None:
    return None if issuers is None else sorted(issuers)
