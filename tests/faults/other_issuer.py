"""The other issuer, whose key is a file: its logouts must not notice what happens to the first one's."""

import time

from tests.system.site import OTHER
from tests.system.waiting import until
from tests.system.worker_process import WorkerProcess

UNMOVED = 1.0  # seconds that a logout of the other issuer may take meanwhile, and five times what one takes otherwise
OTHERS = 10  # sessions of the other issuer, which end in each fault
SLOW = 2  # of them may take longer: a busy machine stands still now and then


async def others_logouts(running: WorkerProcess, times: int = OTHERS) -> float:
    """Logouts of the other issuer, one after the other; the seconds of the slowest, but for `SLOW` of them.

    If they waited for the first one's signatures, each would.
    """
    seconds = []
    before = await running.metric("deliveries_settled_total", iss=OTHER, fate="delivered")
    for number in range(times):
        began = time.monotonic()
        status, _ = await running.post({"iss": OTHER, "sub": "alice", "sid": f"s{number}", "clients": ["other"]})
        assert status == 202
        await running.until_metric(before + number + 1, "deliveries_settled_total", iss=OTHER, fate="delivered")
        seconds.append(time.monotonic() - began)
    return sorted(seconds)[-1 - SLOW]


async def are_unmoved(running: WorkerProcess, usual: float) -> None:
    """Fail if its logouts take longer than usual, as they would if they waited for a signature of the first one's."""
    taken = await others_logouts(running)
    assert taken < UNMOVED + 5 * usual, f"the other issuer's logouts took {taken:.2f} s, and {usual:.2f} s before"


async def beyond(count: float, running: WorkerProcess, name: str, **labels: str) -> None:
    """Wait until the metric is higher than that."""
    await until(lambda: running.metric(name, **labels), lambda value: value > count)
