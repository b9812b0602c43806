"""Asks the identity server itself for sessions: one POST of JSON, answered by a list of sessions."""

from notifier.features.upstreams.session_rows import gathered, read_session
from notifier.features.upstreams.upstream import WITHIN, LocalSession, Question
from notifier.features.upstreams.upstream_settings import SessionsHttpSettings
from notifier.model.errors import SourceFault
from notifier.network.http.json_over_http import place_of, web
from notifier.network.http.json_parts import Bounds

_BOUNDS = Bounds(answer=1024 * 1024)  # bytes: the sessions of one user, with their clients


class SessionEndpoint:
    """Asks an endpoint of the identity server."""

    def __init__(self, settings: SessionsHttpSettings) -> None:
        self._settings = settings

    async def ask(self, question: Question) -> tuple[LocalSession, ...]:
        """Return the sessions that are meant. Raises SourceFault."""
        url = self._settings.url
        document = {"iss": question.iss, "sub": question.sub, "sid": question.sid}
        async with web(self._settings.tls, WITHIN, _BOUNDS) as server:
            answer = await server.ask("POST", url, self._settings.headers, json=document)
        if answer.status != 200:
            raise SourceFault(f"{place_of(url)} answered {answer.status}")
        content = answer.content
        rows = content.get("sessions") if isinstance(content, dict) else content
        if not isinstance(rows, list):
            raise SourceFault(f'{place_of(url)}: the answer is no list of sessions, nor has it a member "sessions"')
        return gathered(_session(row, number) for number, row in enumerate(rows, 1))


def _session(row: object, number: int) -> LocalSession:
    if not isinstance(row, dict):
        raise SourceFault(f"session {number} is no object")
    try:
        return read_session(row.get("sub"), row.get("sid"), row.get("clients"))
    except ValueError as error:
        raise SourceFault(f"session {number} {error}") from None
