"""Questions that hang hold up nobody but their own place, and their askers only for a time."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from notifier.features.upstreams import session_questions
from notifier.features.upstreams.session_questions import AT_A_TIME, SessionKeeper, SessionQuestions
from notifier.features.upstreams.upstream import LocalSession, Question, SessionsAway

QUESTION = Question(iss="https://op.example.com", sub=None, sid="s1")
FOUND = (LocalSession(sub="alice", sid="l1", clients="*"),)
LOOPS_OWN = 32  # threads that an event loop has of its own at most, however many cores


class Hangs(SessionKeeper):
    """Blocks its thread until it is let go, longer than any time that it was given."""

    def __init__(self) -> None:
        self.over = threading.Event()

    async def ask(self, question: Question) -> tuple[LocalSession, ...]:
        """Hang."""
        self.over.wait()
        return FOUND


@pytest.fixture
def hangs() -> Iterator[Hangs]:
    """A place that is let go at the end."""
    place = Hangs()
    yield place
    place.over.set()


async def test_however_many_places_hang_the_loops_own_threads_are_free(hangs: Hangs) -> None:
    """TLS files of clients are read there, and reloads."""
    places = [SessionQuestions(hangs) for _ in range(LOOPS_OWN // AT_A_TIME + 1)]
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(place.sessions(QUESTION)) for place in places for _ in range(AT_A_TIME)]
        await asyncio.sleep(0)  # each has asked
        async with asyncio.timeout(20):
            assert await asyncio.to_thread(lambda: "at once") == "at once"
        assert not any(task.done() and task.result() == FOUND for task in waiting)
        hangs.over.set()


async def test_an_asker_waits_for_a_time_and_the_question_keeps_its_turn(
    hangs: Hangs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a place that hangs for ever has four threads, and not one for each question."""
    monkeypatch.setattr(session_questions, "WITHIN", 0.0)
    monkeypatch.setattr(session_questions, "SPARE", 0.01)
    monkeypatch.setattr(session_questions, "WAIT", 0.01)
    place = SessionQuestions(hangs)
    told = await asyncio.gather(*(place.sessions(QUESTION) for _ in range(AT_A_TIME)))
    assert set(told) == {SessionsAway(text="no answer within 0 s")}
    busy = await place.sessions(QUESTION)
    assert isinstance(busy, SessionsAway)
    assert busy.text.startswith(f"{AT_A_TIME} questions are under way")
    hangs.over.set()
    monkeypatch.setattr(session_questions, "WAIT", 20.0)
    monkeypatch.setattr(session_questions, "SPARE", 20.0)
    assert await place.sessions(QUESTION) == FOUND
