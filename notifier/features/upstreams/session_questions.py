"""Asks which sessions are meant, in a thread with an event loop of its own, so that nothing holds up the worker's loop.

A question that hangs keeps its turn until its thread has ended. Its asker gets an answer long before.
"""

import asyncio
from typing import Protocol

from notifier.features.upstreams.upstream import WITHIN, LocalSession, Question, SessionsAway
from notifier.model.errors import SourceFault
from notifier.model.own_thread import in_own_thread
from notifier.model.redaction import without_subject

AT_A_TIME = 4  # questions to one place that are under way; each has a connection and a thread
WAIT = 1.0  # seconds that a question waits for its turn, while its message is held
SPARE = 2.0  # seconds beyond its own time, after which nobody waits for an answer any more


class SessionKeeper(Protocol):
    """Knows the sessions."""

    async def ask(self, question: Question) -> tuple[LocalSession, ...]:
        """Return the sessions that are meant. Raises SourceFault. May block its thread, but bounds its time."""


class SessionQuestions:
    """Puts questions to one keeper of sessions, a few at a time."""

    def __init__(self, keeper: SessionKeeper) -> None:
        self._keeper = keeper
        self._turns = asyncio.Semaphore(AT_A_TIME)

    async def sessions(self, question: Question) -> tuple[LocalSession, ...] | SessionsAway:
        """Return the sessions that are meant, or say why nobody can tell. Never raises."""
        try:
            async with asyncio.timeout(WAIT):
                await self._turns.acquire()
        except TimeoutError:
            return SessionsAway(text=f"{AT_A_TIME} questions are under way, and none was answered within {WAIT:g} s")
        answer = in_own_thread(lambda: asyncio.run(_answer(self._keeper, question)), "sessions")
        answer.add_done_callback(lambda _: self._turns.release())
        done, _ = await asyncio.wait({answer}, timeout=WITHIN + SPARE)
        return answer.result() if done else SessionsAway(text=f"no answer within {WITHIN:g} s")


async def _answer(keeper: SessionKeeper, question: Question) -> tuple[LocalSession, ...] | SessionsAway:
    try:
        return await keeper.ask(question)
    except SourceFault as fault:
        return SessionsAway(text=without_subject(str(fault), question.sub, question.sid))
    except Exception as error:  # noqa: BLE001  of whatever library: it is asked again later
        return SessionsAway(text=f"asking failed with {type(error).__name__}")
