"""What all workers say to the console: the worker that is asked asks the others over the side channel, and sums up.

What this worker itself says needs no side channel, which is still while the broker is unreachable or raises an alarm.

A request names the parts that it wants, and each worker answers with these. However many operators look, the workers
are asked for an overview twice a second at most.
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
from notifier.model.moment import rendered
from notifier.operators.status.client_state import ClientState
from notifier.operators.status.service_status import ServiceStatus, load_state, status_of
from notifier.operators.status.worker_requests import Act, Members, WorkerAnswer, WorkerRequest, ask_workers_to
from notifier.telemetry.audit import lately

NAME = "console"
ANSWER_WITHIN = 2.0  # seconds that workers have to answer
FRESH = 0.5  # seconds
AT_A_TIME = 250  # clients: 3,000 held the loop for 60 ms
SHARE = 10  # an overview is kept for so many times as long as it took to sum up: thousands of clients take long


class OwnPart:
    """What this worker answers."""

    def __init__(self, view: WorkerView, recent: Recent) -> None:
        self._view = view
        self._recent = recent
        self._searching, self._telling = asyncio.Lock(), asyncio.Lock()
        self._last: tuple[float, Sequence[str]] = (0.0, ())

    async def act(self, request: WorkerRequest) -> Members:
        """Answer with the parts that the request names."""
        asked, recent = request.members, self._recent
        said: dict[str, Any] = {}
        if "clients" in asked:
            keys = asked["clients"]
            said["states"] = await (self._not_well() if keys is None else self._states_of(keys))
        if "clients_of" in asked:
            said["states"] = await self._states_of(asked["clients_of"].get(self._view.name, ()))
        if "steps" in asked:
            said["steps"] = recent.steps(int(asked["steps"]))
        if "answers_of" in asked:
            key = (str(asked["answers_of"][0]), str(asked["answers_of"][1]))
            said["answers"] = [row.document() for row in recent.answers(key)]
            said["minutes"] = recent.minutes(key)
        if "acts" in asked:
            said["acts"] = [{**act, "at": rendered(act["at"])} for act in lately()]
        if "after" in asked or "find" in asked:
            async with self._searching:
                await asyncio.sleep(0)  # deliveries go on between two answers of some milliseconds
                said |= self._rows(asked)
        return said

    async def _not_well(self) -> Sequence[str]:
        """The state with all clients that are not well, as it was a moment ago at most. Deliveries go on meanwhile."""
        async with self._telling:
            if time.monotonic() >= self._last[0]:
                states = list[str]()
                for part in self._view.states(AT_A_TIME):
                    states.append(part.decode())
                    await asyncio.sleep(0)
                self._last = (time.monotonic() + FRESH, states)
            return self._last[1]

    async def _states_of(self, keys: Sequence[Sequence[str]]) -> Sequence[str]:
        """The state with these clients, some at a time."""
        states = list[str]()
        for start in range(0, len(keys), AT_A_TIME):
            named = [(str(iss), str(client_id)) for iss, client_id in keys[start : start + AT_A_TIME]]
            states.append(self._view.state(named).decode())
            await asyncio.sleep(0)
        return states

    def _rows(self, asked: Members) -> Members:
        """The rows that are meant. The memory has 7,000."""
        recent, issuers = self._recent, asked.get("issuers")
        if "after" in asked:
            number = int(asked["after"].get(self._view.name, 0))
            rows = recent.after(number, well=bool(asked.get("well")), issuers=issuers)
            return {"rows": [row.document() for row in rows], "last": recent.last}
        event_id, subject = asked["find"].get("event_id"), asked["find"].get("subject")
        found = recent.found(event_id=event_id, subject=subject, issuers=issuers)
        return {"rows": [row.document() for row in found], "since": recent.since}


@frozen
class Overview:
    """What all workers say of themselves, and the counts of the last half an hour."""

    status: ServiceStatus
    steps: Sequence[Sequence[int]]
    seen: int
    answered: int


class AllWorkers:
    """Asks all workers. `own` is what this worker answers."""

    def __init__(self, view: WorkerView, own: Act) -> None:
        self._view = view
        self._own = own
        self._looking = asyncio.Lock()
        self._last: tuple[float, Overview] | None = None

    async def overview(self) -> Overview:
        """What they said a moment ago."""
        async with self._looking:
            if self._last is None or time.monotonic() >= self._last[0]:
                seen, answers = await self._ask("the console", clients=None, steps=0)
                states = await self._states(answers)
                states += await self._well_elsewhere(states)
                began = time.monotonic()  # to wait for a worker that hangs is no work
                status = await asyncio.to_thread(self._status, states)
                overview = Overview(
                    status=status,
                    steps=merged_steps(answer.said.get("steps", ()) for answer in answers),
                    seen=seen,
                    answered=len(status.workers),
                )
                ended = time.monotonic()
                self._last = (ended + max(FRESH, SHARE * (ended - began)), overview)
            return self._last[1]

    async def clients(self, keys: Collection[ClientKey], **more: Any) -> tuple[ServiceStatus, Sequence[WorkerAnswer]]:
        """How these clients stand at all workers, and their answers to what is asked beside."""
        _, answers = await self._ask("the console", clients=list(keys), **more)
        status = self._status(await self._states(answers))
        meant = set(keys)

        def of_these(clients: Iterable[ClientState]) -> list[ClientState]:
            return [client for client in clients if (client.iss, client.client_id) in meant]

        each = [replace(worker, clients=of_these(worker.clients)) for worker in status.workers]
        known = [answer for answer in answers if answer.problem is None]
        return replace(status, clients=of_these(status.clients), workers=each), known

    async def ask(self, who: str, **members: Any) -> tuple[int, Sequence[WorkerAnswer]]:
        """How many workers there are, and what those say that answer in time."""
        seen, answers = await self._ask(who, **members)
        return seen, [answer for answer in answers if answer.problem is None]

    async def _ask(self, who: str, **members: Any) -> tuple[int, Sequence[WorkerAnswer]]:
        """See `ask`. With the answers of those that know no console."""
        request = WorkerRequest(name=NAME, who=who, members=members)
        name, seen = self._view.name, 0
        answers: Sequence[WorkerAnswer] = ()
        with suppress(QueueError):
            seen, answers = await ask_workers_to(self._view.queue, request, ANSWER_WITHIN)
        if all(answer.worker != name for answer in answers):
            answers = [WorkerAnswer(worker=name, version=__version__, said=await self._own(request)), *answers]
        return seen, answers

    async def _states(self, answers: Sequence[WorkerAnswer]) -> list[bytes]:
        """How the workers stand. One that knows no console, as of an older release, says so when `status` asks."""
        told = {answer.worker: answer.said["states"] for answer in answers if "states" in answer.said}
        if len(told) < len(answers):
            with suppress(QueueError):
                for body in (await self._view.queue.look_around(ANSWER_WITHIN)).worker_states:
                    if (state := load_state(body)) is not None:
                        told.setdefault(state.worker, [body.decode()])
        return [str(state).encode() for states in told.values() for state in states]

    async def _well_elsewhere(self, states: Sequence[bytes]) -> list[bytes]:
        """How clients that are not well at one worker stand at those where they are: these may have told them since."""
        told = await asyncio.to_thread(_clients_of_workers, states)
        troubled = set().union(*told.values())
        others = {worker: sorted(troubled - keys) for worker, keys in told.items() if troubled - keys}
        if not others:
            return []
        _, answers = await self._ask("the console", clients_of=others)
        return [str(state).encode() for answer in answers for state in answer.said.get("states", ())]

    def _status(self, states: Sequence[bytes]) -> ServiceStatus:
        return status_of(self._view.depths(), states, now=time.time())


def _clients_of_workers(states: Iterable[bytes]) -> dict[str, set[ClientKey]]:
    """The clients of which each worker tells."""
    told: dict[str, set[ClientKey]] = {}
    for state in filter(None, map(load_state, states)):
        told.setdefault(state.worker, set()).update((client.iss, client.client_id) for client in state.clients)
    return told


def rows_of(answers: Sequence[WorkerAnswer], part: str = "rows") -> list[Mapping[str, Any]]:
    """The rows of all answers, each with its worker, in the order in which things happened."""
    rows = [{**row, "worker": answer.worker} for answer in answers for row in answer.said.get(part, ())]
    return sorted(rows, key=lambda row: str(row["at"]))


def merged_steps(of_workers: Iterable[Iterable[Sequence[int]]]) -> list[list[int]]:
    """The counts of all workers, in order."""
    sums: dict[int, list[int]] = {}
    for step, *counts in (step for steps in of_workers for step in steps):
        had = sums.setdefault(step, [0] * len(counts))
        sums[step] = [before + more for before, more in zip(had, counts, strict=True)]
    return [[step, *sums[step]] for step in sorted(sums)]
