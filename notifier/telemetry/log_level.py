"""Changes this worker's log level without a restart.

SIGUSR1 turns debug on and off. `GET` and `PUT /v1/log-level` return and set the level.
"""

from collections.abc import Callable
from typing import Literal, get_args

from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.network.listeners.operation import ApiOperation, ApiRequest, Document, to_answer
from notifier.telemetry.audit import write_audit
from notifier.telemetry.log_output import set_level

DEBUG, DEFAULT_LEVEL = "debug", "info"


class LogLevel:
    """The log level. `follow` is called after each change. A restart returns to the configured level."""

    def __init__(self, configured: str, follow: Callable[[], None]) -> None:
        self.configured = configured
        self.current = configured
        self._follow = follow

    def set(self, level: str, *, by: str) -> None:
        """Set the level. `by`: the requester, for the audit log."""
        before, self.current = self.current, level
        write_audit("log_level", level_now=level, level_before=before, by=by)
        set_level(level)
        self._follow()

    def toggle(self) -> None:
        """Switch to debug, or from debug back to the configured level. If that is debug, switch to info."""
        level_without_debug = DEFAULT_LEVEL if self.configured == DEBUG else self.configured
        self.set(level_without_debug if self.current == DEBUG else DEBUG, by="SIGUSR1")


Level = Literal["debug", "info", "warning", "error"]
LEVELS: tuple[Level, ...] = get_args(Level)
_ANSWERS = {200: to_answer("As it is now, and as it is again after a restart.", level=str, configured=str)}


class LevelMembers(TypedDict):
    """The body of a change."""

    level: Level


class LogLevelRoutes:
    """The routes of the log level. A change concerns all issuers, so it requires a token without issuers."""

    def __init__(self, level: LogLevel) -> None:
        self._level = level

    @ApiOperation(route="GET /v1/log-level", summary="Return this worker's log level.", scope="read", answers=_ANSWERS)
    async def _get(self, _request: ApiRequest) -> Document:
        return self._document()

    @ApiOperation(
        route="PUT /v1/log-level",
        summary="Change this worker's log level, until it ends.",
        scope="repair",
        unbound=True,
        body=LevelMembers,
        answers=_ANSWERS,
        problems={400: "No such level."},
    )
    async def _put(self, request: ApiRequest) -> Document:
        self._level.set(request.members["level"], by=request.who)
        return self._document()

    def _document(self) -> Document:
        return {"level": self._level.current, "configured": self._level.configured}
