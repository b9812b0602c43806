"""Builds the routes of the API for operators, with their dependencies, for the worker's API listener."""

import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

from aiohttp import web

from notifier.configuration.configured_feature import readers_of
from notifier.configuration.live_configuration import LiveConfiguration
from notifier.model.defaults import MAX_EVENT
from notifier.model.ids import new_id
from notifier.network.listeners.authorization import Authorization
from notifier.network.listeners.openapi import OperationDescription
from notifier.network.listeners.operation import routes_of
from notifier.network.listeners.problem import Refusal, problem_response
from notifier.operators.deliveries.dead_letter_routes import DeadLetterRoutes
from notifier.operators.deliveries.job_routes import JobRoutes
from notifier.operators.deliveries.jobs import Jobs
from notifier.operators.deliveries.message_index import MessageIndexes
from notifier.operators.deliveries.message_requests import RouteDependencies
from notifier.operators.deliveries.pause_routes import PauseRoutes
from notifier.operators.deliveries.readmission import ReplayRules
from notifier.operators.deliveries.waiting_routes import WaitingRoutes
from notifier.operators.status.reload_request import reload_all
from notifier.operators.status.service_status import ServiceStatus
from notifier.operators.status.status_routes import ReloadRoutes, StatusRoutes
from notifier.queues.queue_port import Queue
from notifier.telemetry.audit import write_audit
from notifier.telemetry.log_level import LogLevel, LogLevelRoutes
from notifier.telemetry.logs import subject_id

GONE = {
    ("GET", "/v1/registry"): "GET /v1/status shows the registry sources of each worker",
    ("POST", "/v1/registry/refresh"): "POST /v1/reload has all workers read their registry sources",
}
"""Removed routes, each with its replacement. They are answered with 410."""


def operator_routes(
    live: LiveConfiguration,
    queue: Queue,
    log_level: LogLevel,
    status: Callable[[], Awaitable[ServiceStatus]],
    jobs: Jobs,
) -> Iterator[web.RouteDef]:
    """Yield the routes for operators. `status` returns the state of all workers."""
    authorization = Authorization(live.tokens)
    yield from routes_of(LogLevelRoutes(log_level), authorization)
    yield from routes_of(ReloadRoutes(partial(reload_all, queue)), authorization)
    yield from routes_of(StatusRoutes(status, time.monotonic), authorization)
    yield from routes_of(PauseRoutes(queue, lambda: live.current), authorization)
    dependencies = RouteDependencies(
        queue=queue,
        rules=partial(_replay_rules, live),
        registry=live.registry,
        jobs=jobs,
        write_audit=write_audit,
        clock=time.time,
        monotonic=time.monotonic,
        indexes=MessageIndexes(time.monotonic),
        subject_id=subject_id(live.current.settings),
    )
    for routes in (DeadLetterRoutes(dependencies), WaitingRoutes(dependencies), JobRoutes(jobs, write_audit)):
        yield from routes_of(routes, authorization)
    for (method, path), replacement in GONE.items():
        yield web.route(method, path, _refusal_of(method, path, replacement))


def _refusal_of(method: str, path: str, replacement: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Return the handler of a removed route. The handler of a GET serves HEAD too."""

    @OperationDescription(summary=replacement, foreign_query=True, removed=True)
    async def refuse(_request: web.Request) -> web.Response:
        raise Refusal(problem_response(410, f"{method} {path} is gone: {replacement}"))

    return refuse


def _replay_rules(live: LiveConfiguration, end_newer_sessions: bool) -> ReplayRules:  # noqa: FBT001  as the routes call it
    current = live.current
    return ReplayRules(
        registry=current.registry,
        new_id=new_id,
        max_event=MAX_EVENT,
        end_newer_sessions=end_newer_sessions,
        readers=readers_of(current.features, current.settings),
    )
