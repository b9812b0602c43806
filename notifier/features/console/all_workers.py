"""Collect the console's data from all workers over the side channel, and merge it.

This worker's data are read directly, as the side channel fails while the broker is unreachable or raises an alarm.

A request lists parts, and each worker answers with these parts. An overview is requested from the workers at most
twice a second, whatever the number of operators.
"""

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from notifier import __version__
from notifier.feature import WorkerView
from notifier.features.console.recent import Recent
from notifier.model.client import ClientKey
from notifier.model.errors import QueueError
from notifier.model.frozen import frozen, replace
from notifier.model.moment import format_optional_moment
from notifier.operators.status.client_state import ClientState
from notifier.operators.status.service_status import ServiceStatus, load_state, status_of
from notifier.operators.status.worker_requests import Act, Members, WorkerAnswer, WorkerRequest, send_to_workers
from notifier.telemetry.audit import recent_lines

NAME = "console"
ANSWER_TIMEOUT_SECONDS = 2.0  # seconds that workers have to answer
FRESH_SECONDS = 0.5
CLIENTS_PER_STEP = 250  # 3,000 clients block the event loop for 60 ms
KEPT_PER_COST = 10  # an overview is cached for this multiple of the time that its merge took


class LocalAnswers:
    """Answers requests with this worker's data."""

    def __init__(self, view: WorkerView, recent: Recent) -> None:
        self._view = view
        self._recent = recent
        self._search_lock, self._state_lock = asyncio.Lock(), asyncio.Lock()
        self._last: tuple[float, Sequence[str]] = (0.0, ())

    async def act(self, request: WorkerRequest) -> Members:
        """Return the requested parts."""
        asked, recent = request.members, self._recent
        said: dict[str, Any] = {}
        if "clients" in asked:
            keys = asked["clients"]
            said["states"] = await (self._troubled_states() if keys is None else self._states_of(keys))
        if "clients_of" in asked:
            said["states"] = await self._states_of(asked["clients_of"].get(self._view.name, ()))
        if "steps" in asked:
            said["steps"] = recent.steps(int(asked["steps"]))
        if "answers_of" in asked:
            key = (str(asked["answers_of"][0]), str(asked["answers_of"][1]))
            said["answers"] = [row.document() for row in recent.answers(key)]
            said["minutes"] = recent.minutes(key)
        if "acts" in asked:
            said["acts"] = [{**act, "at": format_optional_moment(act["at"])} for act in recent_lines()]
        if "after" in asked or "find" in asked:
            async with self._search_lock:
                await asyncio.sleep(0)  # deliveries run between two searches of some milliseconds
                said |= self._rows(asked)
        return said

    async def _troubled_states(self) -> Sequence[str]:
        """Return a recent state with all clients in trouble, in parts, so that deliveries are not blocked."""
        async with self._state_lock:
            if time.monotonic() >= self._last[0]:
                states = list[str]()
                for part in self._view.states(CLIENTS_PER_STEP):
                    states.append(part.decode())
                    await asyncio.sleep(0)
                self._last = (time.monotonic() + FRESH_SECONDS, states)
            return self._last[1]

    async def _states_of(self, keys: Sequence[Sequence[str]]) -> Sequence[str]:
        """Return the state with these clients, in parts."""
        states = list[str]()
        for start in range(0, len(keys), CLIENTS_PER_STEP):
            named = [(str(iss), str(client_id)) for iss, client_id in keys[start : start + CLIENTS_PER_STEP]]
            states.append(self._view.state(named).decode())
            await asyncio.sleep(0)
        return states

    def _rows(self, asked: Members) -> Members:
        """Return the matching rows. Searches up to 7,000 rows."""
        recent, issuers = self._recent, asked.get("issuers")
        if "after" in asked:
            number = int(asked["after"].get(self._view.name, 0))
            rows = recent.after(number, well=bool(asked.get("well")), issuers=issuers)
            return {"rows": [row.document() for row in rows], "last": recent.last}
        event_id, subject = asked["find"].get("event_id"), asked["find"].get("subject")
        found = recent.find_rows(event_id=event_id, subject=subject, issuers=issuers)
        return {"rows": [row.document() for row in found], "since": recent.since}


@frozen
class Overview:
    """The state of all workers, and the counts of the last 30 minutes."""

    status: ServiceStatus
    steps: Sequence[Sequence[int]]
    seen: int
    answered: int


class AllWorkers:
    """Requests data from all workers. `own` is this worker's part."""

    def __init__(self, view: WorkerView, own: Act) -> None:
        self._view = view
        self._own = own
        self._lock = asyncio.Lock()
        self._last: tuple[float, Overview] | None = None

    async def overview(self) -> Overview:
        """Return the overview, from the cache while that is fresh."""
        async with self._lock:
            if self._last is None or time.monotonic() >= self._last[0]:
                seen, answers = await self._ask_all("the console", clients=None, steps=0)
                states = await self._states(answers)
                states += await self._states_elsewhere(states)
                began = time.monotonic()  # excludes the wait for an unresponsive worker
                status = await asyncio.to_thread(self._status, states)
                overview = Overview(
                    status=status,
                    steps=merge_steps(answer.result.get("steps", ()) for answer in answers),
                    seen=seen,
                    answered=len(status.workers),
                )
                ended = time.monotonic()
                self._last = (ended + max(FRESH_SECONDS, KEPT_PER_COST * (ended - began)), overview)
            return self._last[1]

    async def clients(self, keys: Collection[ClientKey], **more: Any) -> tuple[ServiceStatus, Sequence[WorkerAnswer]]:
        """Return these clients' state at all workers, and the workers' answers to `more`."""
        _, answers = await self._ask_all("the console", clients=list(keys), **more)
        status = self._status(await self._states(answers))
        wanted = set(keys)

        def only_wanted(clients: Iterable[ClientState]) -> list[ClientState]:
            return [client for client in clients if (client.iss, client.client_id) in wanted]

        each = [replace(worker, clients=only_wanted(worker.clients)) for worker in status.workers]
        known = [answer for answer in answers if answer.problem is None]
        return replace(status, clients=only_wanted(status.clients), workers=each), known

    async def ask(self, who: str, **members: Any) -> tuple[int, Sequence[WorkerAnswer]]:
        """Return the number of workers, and the answers received in time."""
        seen, answers = await self._ask_all(who, **members)
        return seen, [answer for answer in answers if answer.problem is None]

    async def _ask_all(self, who: str, **members: Any) -> tuple[int, Sequence[WorkerAnswer]]:
        """Do the same as `ask`, and include answers of workers without a console."""
        request = WorkerRequest(name=NAME, who=who, members=members)
        name, seen = self._view.name, 0
        answers: Sequence[WorkerAnswer] = ()
        with suppress(QueueError):
            seen, answers = await send_to_workers(self._view.queue, request, ANSWER_TIMEOUT_SECONDS)
        if all(answer.worker != name for answer in answers):
            answers = [WorkerAnswer(worker=name, version=__version__, result=await self._own(request)), *answers]
        return seen, answers

    async def _states(self, answers: Sequence[WorkerAnswer]) -> list[bytes]:
        """Return the workers' states. A worker without a console (an older release) is queried as by `status`."""
        clients_by_worker = {answer.worker: answer.result["states"] for answer in answers if "states" in answer.result}
        if len(clients_by_worker) < len(answers):
            with suppress(QueueError):
                for body in (await self._view.queue.read_overview(ANSWER_TIMEOUT_SECONDS)).worker_states:
                    if (state := load_state(body)) is not None:
                        clients_by_worker.setdefault(state.worker, [body.decode()])
        return [str(state).encode() for states in clients_by_worker.values() for state in states]

    async def _states_elsewhere(self, states: Sequence[bytes]) -> list[bytes]:
        """Return other workers' states of clients in trouble at one, as deliveries there may have succeeded since."""
        clients_by_worker = await asyncio.to_thread(_clients_of_workers, states)
        troubled = set().union(*clients_by_worker.values())
        others = {worker: sorted(troubled - keys) for worker, keys in clients_by_worker.items() if troubled - keys}
        if not others:
            return []
        _, answers = await self._ask_all("the console", clients_of=others)
        return [str(state).encode() for answer in answers for state in answer.result.get("states", ())]

    def _status(self, states: Sequence[bytes]) -> ServiceStatus:
        return status_of(self._view.depths(), states, now=time.time())


def _clients_of_workers(states: Iterable[bytes]) -> dict[str, set[ClientKey]]:
    clients_by_worker: dict[str, set[ClientKey]] = {}
    for state in filter(None, map(load_state, states)):
        clients_by_worker.setdefault(state.worker, set()).update(
            (client.iss, client.client_id) for client in state.clients
        )
    return clients_by_worker


def collect_rows(answers: Sequence[WorkerAnswer], part: str = "rows") -> list[Mapping[str, Any]]:
    """Return the rows of all answers by time, each with its worker."""
    rows = [{**row, "worker": answer.worker} for answer in answers for row in answer.result.get(part, ())]
    return sorted(rows, key=lambda row: str(row["at"]))


def merge_steps(of_workers: Iterable[Iterable[Sequence[int]]]) -> list[list[int]]:
    """Return the sums of all workers' counts, by step."""
    sums: dict[int, list[int]] = {}
    for step, *counts in (step for steps in of_workers for step in steps):
        sum_so_far = sums.setdefault(step, [0] * len(counts))
        sums[step] = [before + more for before, more in zip(sum_so_far, counts, strict=True)]
    return [[step, *sums[step]] for step in sorted(sums)]
