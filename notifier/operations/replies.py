"""Sends replies over the side channel to publishers who asked, and hands those for this process to who waits here."""

from collections.abc import Callable

from notifier.domain.fate import Told, dump_told, load_told
from notifier.domain.reply import ReplyTo
from notifier.operations.fates import Fates
from notifier.operations.queue_port import SideChannel
from notifier.operations.waiting import Waits
from notifier.pipeline.ports import Clock


class Replies:
    """The replies of one worker. `observe` hears facts; `waits` are the HTTP requests that wait here for replies."""

    def __init__(
        self, side_channel: SideChannel, state: Callable[[], bytes], *, clock: Clock, new_id: Callable[[], str]
    ) -> None:
        self._side_channel = side_channel
        self.waits = Waits(side_channel.address, clock=clock, new_id=new_id)
        self.observe = Fates(self._reply).observe
        side_channel.listen(state, self._heard)

    def _reply(self, asked: ReplyTo, told: Told) -> None:
        if not self.waits.heard(asked.correlation_id, told):
            self._side_channel.reply(asked.to, asked.correlation_id, dump_told(told))

    def _heard(self, correlation_id: str, body: bytes) -> None:
        """Another worker delivered an event that was published here."""
        if (told := load_told(body)) is not None:
            self.waits.heard(correlation_id, told)
