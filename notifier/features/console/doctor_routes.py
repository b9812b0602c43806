"""Serve the console's doctor, canaries (harmless logout tokens), and the audit log since the workers' start."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.feature import WorkerView
from notifier.features.console.all_workers import AllWorkers, collect_acts
from notifier.model.moment import format_optional_moment
from notifier.model.shared_resources import shared_bound
from notifier.network.listeners.operation import ApiOperation, ApiRequest, Document, Items, to_answer
from notifier.network.listeners.problem import Refusal, problem_response
from notifier.network.listeners.throttle import RequestSlots
from notifier.telemetry.audit import write_audit

FRESH_SECONDS = 30.0  # during which the doctor's result is reused
MAX_CANARIES = shared_bound(16)  # at a time, one per client: clients that hang do not occupy the slots of publishers
MAX_RUN_SECONDS = 120.0
_STRICT = ConfigDict(extra="forbid")


_RESULT_MEMBERS = {
    "state": str,
    "began_at": str | None,
    "ended_at": str | None,
    "problem": str | None,
    "findings": Items,
}


@with_config(_STRICT)
class CanaryBody(TypedDict):
    """The client of a canary."""

    client_id: str
    iss: str


class Doctor:
    """Runs `notifier doctor` in a separate process, one at a time, and keeps the last result.

    The doctor loads the whole configuration. In the worker's process this would block the event loop and take memory.
    """

    def __init__(self, config: Path | None) -> None:
        self._config = config
        self._task: asyncio.Task[None] | None = None
        self._state: Literal["never", "running", "ended"] = "never"
        self._began_at: float | None = None
        self._ended_at: float | None = None
        self._findings: Sequence[Mapping[str, Any]] = ()
        self._problem: str | None = None

    def begin(self) -> None:
        """Start the doctor, unless it is running or has ended within FRESH_SECONDS."""
        is_fresh = self._ended_at is not None and time.time() - self._ended_at < FRESH_SECONDS
        if self._state == "running" or is_fresh:
            return
        self._state, self._began_at = "running", time.time()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        """Run the process, and keep its findings, or the problem that prevented it."""
        command = [sys.executable, "-m", "notifier", "doctor", "--json"]
        if self._config is not None:
            command += ["--config", str(self._config)]
        findings, process = list[Mapping[str, Any]](), None
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL, env=dict(os.environ),
            )  # fmt: skip
            async with asyncio.timeout(MAX_RUN_SECONDS):
                output, _ = await process.communicate()
            content = json.loads(output)
            if isinstance(content, dict):  # the errors of a configuration that cannot be loaded
                findings = [_to_finding(mistake) for mistake in content["mistakes"]]
                self._problem = "the configuration cannot be used as its files are now"
            else:
                findings, self._problem = content, None
        except TimeoutError:
            self._problem = f"the doctor took longer than {MAX_RUN_SECONDS:g} s; try notifier doctor"
        except (OSError, ValueError, LookupError):  # the process did not start, or wrote no JSON
            self._problem = "the doctor could not look; try notifier doctor"
        finally:
            if process is not None and process.returncode is None:
                process.kill()
            self._findings, self._state, self._ended_at = findings, "ended", time.time()

    async def close(self) -> None:
        """Stop the doctor if it is running."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def document(self) -> dict[str, Any]:
        """Return the state, and the last result."""
        return {
            "state": self._state,
            "began_at": format_optional_moment(self._began_at),
            "ended_at": format_optional_moment(self._ended_at),
            "problem": self._problem,
            "findings": self._findings,
        }


def _to_finding(mistake: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an error of the configuration as a finding of the doctor."""
    finding = {"area": "configuration", "subject": mistake["path"], "level": "failed", "text": mistake["text"]}
    return {**finding, "advice": "", "count": 1, "first": []}


class DoctorRoutes:
    """The routes of the doctor, canaries and the audit log. `workers` collects the data of all workers."""

    def __init__(self, view: WorkerView, workers: AllWorkers, doctor: Doctor) -> None:
        self._view = view
        self._workers = workers
        self._doctor = doctor
        self._canaries = RequestSlots(MAX_CANARIES, 1, "to this client")

    @ApiOperation(
        route="POST /v1/doctor",
        summary="Have the doctor check everything that a logout depends on. It ends no session.",
        scope="read",
        unbound=True,
        answers={202: to_answer("It has started. GET returns its findings.", **_RESULT_MEMBERS)},
    )
    async def _start_examination(self, _request: ApiRequest) -> Document:
        self._doctor.begin()
        return self._doctor.document()

    @ApiOperation(
        route="GET /v1/doctor",
        summary="Return the doctor's last findings at this worker.",
        scope="read",
        unbound=True,
        answers={200: to_answer("Its findings.", **_RESULT_MEMBERS)},
    )
    async def _last_examination(self, _request: ApiRequest) -> Document:
        return self._doctor.document()

    @ApiOperation(
        route="POST /v1/canary",
        summary="Send a client a real token for a user and a session that cannot exist. It is audited.",
        scope="repair",
        body=CanaryBody,
        answers={200: to_answer("What the client answered, explained.", findings=Items)},
        problems={404: "There is no such client."},
    )
    async def _canary(self, request: ApiRequest) -> Document:
        """Send a canary to one client, and return the findings. Raises Refusal (403, 404; 429 while another runs)."""
        iss, client_id = request.members["iss"], request.members["client_id"]
        request.require_issuer(iss)
        client = self._view.live.registry().clients_of(iss).get(client_id)
        if client is None:
            raise Refusal(problem_response(404, "There is no such client"))
        with self._canaries.hold_slot(f"{client_id} {iss}"):
            findings = await self._view.canary(client)
        write_audit("canary_sent", who=request.who, iss=iss, client_id=client_id, level=findings[0].level.value)
        return {"findings": list(map(asdict, findings))}

    @ApiOperation(
        route="GET /v1/acts",
        summary="Return who replayed, discarded, cancelled, retried or reloaded since these workers started.",
        scope="read",
        unbound=True,
        answers={200: to_answer("Lines of the audit log, the newest first.", acts=Items)},
    )
    async def _acts(self, request: ApiRequest) -> Document:
        """Return the audit lines of all workers. They may name clients of any issuer."""
        _, answers = await self._workers.ask(request.who, acts=True)
        return {"acts": collect_acts(answers)}
