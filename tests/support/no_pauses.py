"""The pauses of a worker whose clients no operator has paused, for attempts without a worker."""

import math
from collections.abc import Mapping

from notifier.model.client import ClientKey
from notifier.model.pauses import Pause


class NoPauses:
    """The port `Pauses`. A test may pause clients, and replace `refresh`."""

    def __init__(self) -> None:
        self.in_force: Mapping[ClientKey, Pause] = {}
        self.outdated_at = math.inf

    async def refresh(self) -> None:
        """Implement the port."""
