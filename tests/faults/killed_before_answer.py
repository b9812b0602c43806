"""The worker as it ships, but killed between the moment that a logout is durable and the answer to its sender.

    python killed_before_answer.py NTH run -c …

It concerns logout tokens of upstream providers. NTH: which of the requests is never answered.
"""

import itertools
import os
import signal
import sys

from notifier.cli import main
from notifier.features.upstreams.upstream_routes import ConfiguredUpstream, UpstreamRoutes
from notifier.features.upstreams.upstream_token import UpstreamResult, VerifiedLogout

_publish = UpstreamRoutes._publish


def poison(nth: int) -> None:
    """Have this process die before it answers that request."""
    durable = itertools.count(1)

    async def token(
        self: UpstreamRoutes, upstream: ConfiguredUpstream, logout: VerifiedLogout
    ) -> tuple[UpstreamResult, str]:
        result, text = await _publish(self, upstream, logout)
        if result is UpstreamResult.ACCEPTED and next(durable) == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return result, text

    UpstreamRoutes._publish = token  # type: ignore[method-assign]


if __name__ == "__main__":
    poison(int(sys.argv.pop(1)))
    main()
