"""The worker as it ships, but killed between the moment that a logout is durable and the answer to its sender.

    python killed_before_answer.py NTH run -c …

It concerns `POST /v1/sign-outs` and logout tokens of upstream providers. NTH: which of the requests is never answered.
"""

import itertools
import os
import signal
import sys
from collections.abc import Awaitable

from notifier.cli import main
from notifier.domain.upstream_token import UpstreamResult, VerifiedLogout
from notifier.server.browsers.upstream_routes import UpstreamDoor, UpstreamRoutes
from notifier.server.publishers import event_requests
from notifier.server.publishers.taking import ApiLimits, publish_in_time

_publish = UpstreamRoutes._publish


def poison(nth: int) -> None:
    """Have this process die before it answers that request."""
    durable = itertools.count(1)

    def survive() -> None:
        if next(durable) == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    async def event(publishing: Awaitable[None], limits: ApiLimits, title: str) -> None:
        await publish_in_time(publishing, limits, title)
        survive()

    async def token(self: UpstreamRoutes, door: UpstreamDoor, logout: VerifiedLogout) -> tuple[UpstreamResult, str]:
        result, text = await _publish(self, door, logout)
        if result is UpstreamResult.ACCEPTED:
            survive()
        return result, text

    vars(event_requests)["publish_in_time"] = event
    UpstreamRoutes._publish = token  # type: ignore[method-assign]


if __name__ == "__main__":
    poison(int(sys.argv.pop(1)))
    main()
