"""One publisher at its broker, and what a case may do and see."""

import asyncio
import contextlib
import itertools
import json
import random
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from publishers.conformance.broker import Broker
from publishers.conformance.subject import Away, Session, Settings, Subject
from publishers.tests.tap import Published
from tests.support.small_disk import disk_if_we_may

LIMIT = 2.0  # seconds that a sign-out may take at most
MARGIN = 4.0  # for a machine that does much else, or stands still for a moment
PUBLISH_LIMIT = 2.0
DRAIN_LIMIT = 1.0
BLINK = 0.7  # seconds in which a publisher that forgets has forgotten
DISK_MIB = 64
EVERY = 0.05
WAITS = (".json", ".pending", ".prepared")
"""Endings of files whose events wait. C#'s `.left.json`, whose sessions are looked up first, are among them."""


@dataclass(slots=True, kw_only=True)
class Harness:
    """See the module. `patience`: seconds until something that must come has not come. `whole`: the long form."""

    subject: Subject
    broker: Broker
    settings: Settings
    small_disk: bool
    whole: bool = False
    patience: float = 40.0
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    all_sessions: list[Session] = field(default_factory=list)
    others: list[Subject] = field(default_factory=list)
    runs_with: Settings | None = None

    def form(self, short: int, whole: int) -> int:
        """How many of something."""
        return whole if self.whole else short

    def many(self, short: int, whole: int) -> int:
        """How many sessions; in the short form no more than the subject can make in good time."""
        return whole if self.whole else min(short, self.subject.traits.sign_ins)

    # ── the publisher ──

    async def run(self, **changes: Any) -> None:
        """Run the publisher with these settings and changes. Do not restart it if it has them."""
        wanted = replace(self.settings, **changes)
        if self.runs_with == wanted:
            return
        await self.subject.stop()
        self.runs_with = None
        await self.subject.start(wanted)
        self.runs_with = wanted

    async def kill(self) -> None:
        """SIGKILL."""
        self.runs_with = None
        await self.subject.kill()

    async def sign_in(self, count: int = 1) -> list[Session]:
        """New sessions."""
        made = await self.subject.sign_in(count)
        self.all_sessions += made
        return made

    async def sign_out(self, sessions: Sequence[Session], together: int = 1) -> list[float]:
        """One after the other, or some at a time; how long each took. Fails if one fails or waits too long."""
        left = iter(sessions)

        async def some() -> list[float]:
            return [await self.subject.sign_out(session) for session in left]

        took = list(itertools.chain.from_iterable(await asyncio.gather(*(some() for _ in range(together)))))
        assert max(took, default=0) <= LIMIT + MARGIN, f"a sign-out took {max(took):.2f} s"
        return took

    async def sign_out_until_killed(self, sessions: Sequence[Session], done: list[Session]) -> None:
        """Sign out sessions in turn; add the answered ones to `done`. Return when the process is gone."""
        for session in sessions:
            try:
                await self.subject.sign_out(session)
            except Away:
                return
            done.append(session)

    # ── events ──

    def of(self, session: Session) -> list[Published]:
        """Return all events about this session, copies too."""
        return self.by_key().get(session.key, [])

    def by_key(self) -> dict[str, list[Published]]:
        """Return all events by the key of the session, in the order of the first events."""
        found: dict[str, list[Published]] = {}
        for each in self.broker.received:
            found.setdefault(self.subject.key_of(each.event), []).append(each)
        return found

    def published(self) -> set[str]:
        """Return the keys of all sessions with a published event."""
        return {*self.by_key()}

    async def until(self, good: Callable[[], Any], failure: str) -> None:
        """Wait for it."""
        deadline = asyncio.get_running_loop().time() + self.patience
        while not good():
            assert asyncio.get_running_loop().time() < deadline, (
                f"{failure}; its log ends: {self.subject.log()[-3000:]}"
            )
            await asyncio.sleep(EVERY)

    async def until_published(
        self, sessions: Collection[Session], *, lane: str = "events", or_lane: str | None = None
    ) -> None:
        """Wait until each is published, with one id and the expected content, and until the outbox is empty."""
        wanted = {session.key for session in sessions}
        await self.until(lambda: wanted <= self.published(), "events are lost")
        await self.until_nothing_waits()
        events = self.by_key()
        for session in sessions:
            found = events[session.key]
            assert len({each.id for each in found}) == 1, "one ending, several ids"
            assert found[0].lane in {lane, or_lane}, "the wrong lane"
            assert mistakes(session, found[0]) == []

    def in_order(self, sessions: Sequence[Session]) -> bool:
        """Return whether their events came in this order, copies aside."""
        keys = {session.key: None for session in sessions}
        return [key for key in self.by_key() if key in keys] == [*keys]

    # ── the outbox ──

    def files(self, *endings: str) -> list[Path]:
        """Those of events in the outbox, which begin with a time, with such an ending."""
        found = self.settings.outbox.rglob("[0-9]*.*")
        return sorted(path for path in found if path.suffix in endings)

    def waiting(self) -> int:
        """Events that wait to be published: one in a file, or one in each of its lines.

        A rename to `.json` can hide a file while its folder is read, so the larger of two looks counts.
        """
        return max(sum(map(_events, self.files(*WAITS))) for _ in range(2))

    async def until_nothing_waits(self) -> None:
        """The outbox is empty."""
        await self.until(lambda: not self.files(*WAITS), "files stay in the outbox")

    async def stays_waiting(self, count: int = 1) -> None:
        """Nothing is taken out of the outbox for a while."""
        loop = asyncio.get_running_loop()
        await self.until(lambda: self.waiting() >= count, "the outbox forgot an event that nobody has confirmed")
        deadline = loop.time() + BLINK
        while loop.time() < deadline:
            assert self.waiting() >= count, "the outbox forgot an event that nobody has confirmed"
            await asyncio.sleep(EVERY)

    def report(self, figures: str) -> None:
        """What `pytest -s` and a failed run show."""
        print(f"{self.subject.name}: {figures}")  # noqa: T201  figures for whoever asks

    def log(self) -> str:
        """Of every process of this harness; what the last one writes comes last."""
        return "".join(each.log() for each in (*self.others, self.subject))


def _events(path: Path) -> int:
    try:
        return len(path.read_text().splitlines())
    except FileNotFoundError:
        return 0  # published meanwhile


def mistakes(session: Session, received: Published) -> list[str]:
    """Return the differences between an event and its expected content."""
    return [
        f"{name}: {received.event.get(name)!r} is not {value!r}"
        for name, value in session.expected.items()
        if _unordered(received.event.get(name)) != _unordered(value)
    ]


def _unordered(value: Any) -> Any:
    return sorted(json.dumps(each, sort_keys=True) for each in value) if isinstance(value, list | tuple) else value


# ── a separate disk ──


@contextlib.asynccontextmanager
async def harness(subject: Subject, broker: Broker, folder: Path, **more: Any) -> AsyncIterator[Harness]:
    """The publisher at the broker, not started yet."""
    with disk_if_we_may(folder / "disk", DISK_MIB) as small_disk:
        settings = Settings(
            url=broker.url,
            secret_file=broker.secret_file,
            outbox=folder / "disk" / "outbox",
            sign_out_limit=LIMIT,
            publish_limit=PUBLISH_LIMIT,
            drain_limit=DRAIN_LIMIT,
        )
        made = Harness(subject=subject, broker=broker, settings=settings, small_disk=small_disk, **more)
        try:
            yield made
        finally:
            for each in (*made.others, subject):
                await each.close()
