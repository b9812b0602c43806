"""Asks whose session it is, in a thread with an event loop of its own, so that nothing holds up the worker's loop."""

import asyncio
from typing import Protocol

from notifier.domain.client_rows import SourceFault
from notifier.domain.redaction import without_subject
from notifier.domain.upstream import LocalSession, Question, SessionsAway

AT_A_TIME = 4  # questions to one place that are under way; each has a connection and a thread
WAIT = 1.0  # seconds that a question waits for its turn, while its message is held


class Asked(Protocol):
    """A place that knows the sessions."""

    async def ask(self, question: Question) -> tuple[LocalSession, ...]:
        """Return the sessions that are meant. Raises SourceFault. May block its thread, but bounds its time."""


class Asking:
    """Puts questions to one place, a few at a time."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._turns = asyncio.Semaphore(AT_A_TIME)

    async def sessions(self, question: Question) -> tuple[LocalSession, ...] | SessionsAway:
        """Return the sessions that are meant, or say why nobody can tell. Never raises."""
        try:
            async with asyncio.timeout(WAIT):
                await self._turns.acquire()
        except TimeoutError:
            return SessionsAway(text=f"{AT_A_TIME} questions are under way, and none was answered within {WAIT:g} s")
        try:
            return await asyncio.to_thread(asyncio.run, self._asked.ask(question))
        except SourceFault as fault:
            return SessionsAway(text=without_subject(str(fault), question.sub, question.sid))
        except Exception as error:  # noqa: BLE001  of whatever library: it is asked again later
            return SessionsAway(text=f"asking failed with {type(error).__name__}")
        finally:
            self._turns.release()
