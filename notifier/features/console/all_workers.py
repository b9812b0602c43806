"""Collect the console's data from all workers over the queue's side channel, and merge them.

The names of a request's members are parts of the data; each worker answers with these parts. This worker's data are
read directly, since the side channel fails while the broker is unreachable or raises an alarm. An overview is requested
from the workers at most twice a second, whatever the number of operators.
"""

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Any

from notifier import __version__
from notifier.feature import WorkerView
from notifier.features.console.console_parts import CONSOLE_PARTS
from notifier.features.console.recent import Recent
from notifier.model import json_size
from notifier.model.client import ClientKey
from notifier.model.errors import QueueError
from notifier.model.message import Depth
from notifier.model.moment import format_optional_moment
from notifier.model.own_thread import run_in_thread
from notifier.model.record import copy_record, record
from notifier.model.shared_resources import shared_lock
from notifier.operators.deliveries.repair import REMOVALS
from notifier.operators.status.client_status import ClientStatus
from notifier.operators.status.service_status import ServiceStatus, load_state, status_of
from notifier.operators.status.worker_requests import Act, Members, WorkerAnswer, WorkerRequest, send_to_workers
from notifier.telemetry.audit import CLAIMED_SUFFIX, recent_lines

ANSWER_TIMEOUT_SECONDS = 2.0
FRESH_SECONDS = 0.5  # during which states and overviews are reused
CLIENTS_PER_STEP = 250  # 3,000 clients at a time would block the event loop for 60 ms
MAX_PART_BYTES = 896 * 1024  # of the states, rows or lines of an answer: the side channel drops answers above 1 MiB
CACHE_PER_COST = 10  # an overview is cached for this multiple of the time that its merge took


class LocalAnswers:
    """Answers the console's requests with this worker's data."""

    def __init__(self, view: WorkerView, recent: Recent) -> None:
        self._view = view
        self._recent = recent
        self._search_lock = shared_lock()
        self._state_lock = shared_lock()
        self._troubled_states: Sequence[str] = ()
        self._troubled_states_until = 0.0

    async def act(self, request: WorkerRequest) -> Members:
        """Return the requested parts of this worker's data."""
        parts, recent = request.members, self._recent
        answer: dict[str, Any] = {}
        if "clients" in parts:
            keys = parts["clients"]
            answer["states"] = await (self._read_troubled_states() if keys is None else self._read_states(keys))
        if "clients_of" in parts:
            answer["states"] = await self._read_states(parts["clients_of"].get(self._view.name, ()))
        if "steps" in parts:
            answer["steps"] = recent.steps(parts["steps"])
        if "answers_of" in parts:
            key = parts["answers_of"]
            answer["answers"] = [row.document() for row in recent.answers(key)]
            answer["minutes"] = recent.minutes(key)
        if "acts" in parts:
            lines = [{**line, "at": format_optional_moment(line["at"])} for line in recent_lines()]
            answer["acts"] = _keep_newest(lines)
        if "after" in parts or "find" in parts:
            async with self._search_lock:
                await asyncio.sleep(0)  # a search takes milliseconds; deliveries run between two of them
                answer |= self._search(parts)
        return answer

    async def _read_troubled_states(self) -> Sequence[str]:
        """Return this worker's state with all clients in trouble, from the cache while that is fresh.

        It is serialized in several documents, and deliveries run between two of them.
        """
        async with self._state_lock:
            if time.monotonic() >= self._troubled_states_until:
                states = await _collect_states(self._view.states(CLIENTS_PER_STEP))
                self._troubled_states, self._troubled_states_until = states, time.monotonic() + FRESH_SECONDS
            return self._troubled_states

    async def _read_states(self, keys: Sequence[ClientKey]) -> Sequence[str]:
        """Return this worker's state with the clients `keys`, in documents of CLIENTS_PER_STEP clients."""
        starts = range(0, len(keys), CLIENTS_PER_STEP)
        steps = (keys[start : start + CLIENTS_PER_STEP] for start in starts)
        return await _collect_states(map(self._view.state, steps))

    def _search(self, parts: Members) -> Members:
        """Return the recent entries after a number, or those of an event or a user. Scans up to 7,000 entries.

        `parts`: `after` or `find`. `well`: include successful deliveries among the entries after a number.
        """
        recent, issuers = self._recent, parts.get("issuers")
        if "after" in parts:
            number = parts["after"].get(self._view.name, 0)
            rows = recent.after(number, well=parts.get("well", False), issuers=issuers)
            return {"rows": _keep_newest([row.document() for row in rows]), "last": recent.last}
        event_id, subject = parts["find"].get("event_id"), parts["find"].get("subject")
        matches = recent.find_rows(event_id=event_id, subject=subject, issuers=issuers)
        return {"rows": _keep_newest([row.document() for row in matches]), "since": recent.since}


async def _collect_states(documents: Iterable[bytes]) -> Sequence[str]:
    """Return as many of the first documents as fit into an answer. Yield to the event loop after each."""
    states, free_bytes = list[str](), MAX_PART_BYTES
    for document in documents:
        free_bytes -= json_size.size(text := document.decode())
        if free_bytes < 0:
            break
        states.append(text)
        await asyncio.sleep(0)
    return states


def _keep_newest(rows: Sequence[Members]) -> Sequence[Members]:
    """Return as many of the last rows as fit into an answer."""
    return json_size.take_fitting(reversed(rows), MAX_PART_BYTES)[::-1]


@record
class Overview:
    """The merged state of all workers, and the sums of their counts in the last 30 minutes (`steps`).

    `seen` is the number of workers, of which `answered` have answered.
    """

    status: ServiceStatus
    steps: Sequence[Sequence[int]]
    seen: int
    answered: int


class AllWorkers:
    """Requests data from all workers. `answer_locally` answers with this worker's data."""

    def __init__(self, view: WorkerView, answer_locally: Act) -> None:
        self._view = view
        self._answer_locally = answer_locally
        self._lock = shared_lock()
        self._overview: Overview | None = None
        self._overview_until = 0.0

    async def overview(self) -> Overview:
        """Return the overview, from the cache while that is fresh."""
        async with self._lock:
            if self._overview is None or time.monotonic() >= self._overview_until:
                (seen, answers), depths = await asyncio.gather(
                    self._ask_all("the console", clients=None, steps=0), self._read_depths()
                )
                states = await self._states_in(answers)
                # The last state of each worker has the number of omitted clients.
                states = [*await self._read_other_states(states), *states]
                merge_began = time.monotonic()  # excludes the wait for an unresponsive worker
                status = await run_in_thread(partial(_merge_states, depths, states), "merge of states")
                self._overview = Overview(
                    status=status,
                    steps=merge_steps(answer.result.get("steps", ()) for answer in answers),
                    seen=seen,
                    answered=len(status.workers),
                )
                ended = time.monotonic()
                self._overview_until = ended + max(FRESH_SECONDS, CACHE_PER_COST * (ended - merge_began))
            return self._overview

    async def clients(self, keys: Collection[ClientKey], **parts: Any) -> tuple[ServiceStatus, Sequence[WorkerAnswer]]:
        """Return the clients' state at all workers, and the workers' answers, which also have the other `parts`."""
        _, answers = await self._ask_all("the console", clients=list(keys), **parts)
        status = _merge_states({}, await self._states_in(answers))
        requested = set(keys)

        def only_requested(clients: Iterable[ClientStatus]) -> list[ClientStatus]:
            return [client for client in clients if (client.iss, client.client_id) in requested]

        workers = [copy_record(worker, clients=only_requested(worker.clients)) for worker in status.workers]
        status = copy_record(status, clients=only_requested(status.clients), workers=workers)
        return status, [answer for answer in answers if answer.problem is None]

    async def ask(self, who: str, **members: Any) -> tuple[int, Sequence[WorkerAnswer]]:
        """Return the number of workers, and the answers received within ANSWER_TIMEOUT_SECONDS."""
        seen, answers = await self._ask_all(who, **members)
        return seen, [answer for answer in answers if answer.problem is None]

    async def _ask_all(self, who: str, **members: Any) -> tuple[int, Sequence[WorkerAnswer]]:
        """Do the same as `ask`, and include workers without a console, whose answers have a `problem`."""
        request = WorkerRequest(kind=CONSOLE_PARTS, who=who, members=members)
        name, seen = self._view.name, 0
        answers: Sequence[WorkerAnswer] = ()
        with suppress(QueueError, TimeoutError):
            async with asyncio.timeout(2 * ANSWER_TIMEOUT_SECONDS):  # a frozen broker does not even count the workers
                seen, answers = await send_to_workers(self._view.queue, request, ANSWER_TIMEOUT_SECONDS)
        if all(answer.worker != name for answer in answers):
            answers = [
                WorkerAnswer(worker=name, version=__version__, result=await self._answer_locally(request)),
                *answers,
            ]
        return seen, answers

    async def _states_in(self, answers: Sequence[WorkerAnswer]) -> list[bytes]:
        """Return the states in the answers. Workers without a console (older releases) are queried as by `status`."""
        states_of = {answer.worker: answer.result["states"] for answer in answers if "states" in answer.result}
        if len(states_of) < len(answers):
            with suppress(QueueError):
                for body in (await self._view.queue.read_overview(ANSWER_TIMEOUT_SECONDS)).worker_states:
                    state = load_state(body)
                    if state is not None:
                        states_of.setdefault(state.worker, [body.decode()])
        return [state.encode() for states in states_of.values() for state in states]

    async def _read_other_states(self, states: Sequence[bytes]) -> list[bytes]:
        """Return the states of clients in trouble at one worker, at the other workers whose answers omit them.

        A worker omits clients that are well: the deliveries there may have succeeded since.
        """
        clients_by_worker = await run_in_thread(partial(_clients_by_worker, states), "clients by worker")
        troubled = set().union(*clients_by_worker.values())
        omitted = {worker: sorted(troubled - keys) for worker, keys in clients_by_worker.items() if troubled - keys}
        if not omitted:
            return []
        _, answers = await self._ask_all("the console", clients_of=omitted)
        return [state.encode() for answer in answers for state in answer.result.get("states", ())]

    async def _read_depths(self) -> Mapping[str, Depth]:
        """Return the depths of the queues now, as the states of clients are; if that takes long, of the last reading.

        Without the queue they are unknown: return none.
        """
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
                return await self._view.queue.depths()
        except TimeoutError:
            return self._view.depths()
        except QueueError:
            return {}


def _merge_states(depths: Mapping[str, Depth], states: Sequence[bytes]) -> ServiceStatus:
    return status_of(depths, states, now=time.time())


def _clients_by_worker(states: Iterable[bytes]) -> dict[str, set[ClientKey]]:
    """Return the clients in the states of each worker. Invalid states are ignored."""
    clients_by_worker: dict[str, set[ClientKey]] = {}
    for body in states:
        state = load_state(body)
        if state is not None:
            keys = clients_by_worker.setdefault(state.worker, set())
            keys.update((client.iss, client.client_id) for client in state.clients)
    return clients_by_worker


def collect_rows(answers: Sequence[WorkerAnswer], part: str = "rows") -> list[Mapping[str, Any]]:
    """Return the rows of a part in all answers, sorted by time, each with its worker's name."""
    rows = [{**row, "worker": answer.worker} for answer in answers for row in answer.result.get(part, ())]
    return sorted(rows, key=lambda row: row["at"])


def collect_acts(answers: Sequence[WorkerAnswer]) -> list[Mapping[str, Any]]:
    """Return the actions in all answers, the newest first. Each worker logs the action of a command, and each pause.

    Of a pause by the API the line with the proven name counts. A repair by the API also has lines that each name one
    removed message: they are the `parts` of its row. The key has `who`, so that the line of a command, which may claim
    any `repair_id`, replaces no other.
    """
    lines: dict[object, Mapping[str, Any]] = {}
    parts: dict[object, list[Mapping[str, Any]]] = {}
    for number, row in enumerate(collect_rows(answers, "acts")[::-1]):
        action_id, repair = row.get("action_id"), (str(row.get("who")), str(row.get("repair_id")))
        if isinstance(action_id, str):
            action = row["action"], action_id, ""
            if action not in lines or not str(row.get("who")).endswith(CLAIMED_SUFFIX):
                lines[action] = row
        elif "repair_id" not in row:
            lines[number] = row
        elif row["action"] in REMOVALS:
            parts.setdefault(repair, []).append(row)
            lines.setdefault(repair, row)  # the result is logged last
        else:
            lines[repair] = row
    return [{**row, "parts": parts[key]} if key in parts else row for key, row in lines.items()]


def merge_steps(steps_of_workers: Iterable[Iterable[Sequence[int]]]) -> list[list[int]]:
    """Return the sums of all workers' counts by step. A row has the step, then the counts."""
    sums: dict[int, list[int]] = {}
    for step, *counts in chain.from_iterable(steps_of_workers):
        totals = sums.get(step, [0] * len(counts))
        sums[step] = [total + count for total, count in zip(totals, counts, strict=True)]
    return [[step, *sums[step]] for step in sorted(sums)]
