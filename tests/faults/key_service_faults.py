"""A key service that fails under load, in each of its ways, one after the other."""

import signal
import time
from collections.abc import Iterable

from tests.faults.faulty_key_services import KeyService
from tests.faults.rig import CLIENTS, Rig, answers, load
from tests.system.ledger import Account
from tests.system.site import ISSUER, OTHER, client
from tests.system.waiting import until
from tests.system.worker_process import WorkerProcess, worker

AGAIN = 20  # signatures after each fault
UNMOVED = 1.0  # seconds that a logout of the other issuer may take meanwhile, and five times what one takes otherwise
OTHERS = 10  # sessions of the other issuer, which end in each fault
SLOW = 2  # of them may take longer: a busy machine stands still now and then


async def others_logouts(running: WorkerProcess, times: int = OTHERS) -> float:
    """Log out at the other issuer, one session after the other. Return the seconds of the slowest but `SLOW`.

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


async def suffer(made: Rig, service: KeyService, faults: Iterable[tuple[str, str]], rate: int) -> Account:
    """Make the faults under load, each with the `result` that the worker counts. The service signs for one issuer."""
    made.clients.judge = answers(0)
    made.site.config["issuers"][ISSUER]["keys"] = [{service.kind: dict(service.key)}]
    made.site.write()
    others = client("other", made.clients.url("healthy"), OTHER)
    made.site.write_clients([*(client(name, made.clients.url(name)) for name in CLIENTS), others])
    async with (
        worker(made.site, settings=service.environ, command=service.command) as running,
        load(made.publisher, rate) as end,
    ):
        await made.more(rate)
        usual = await others_logouts(running)
        for fault, result in faults:
            await _one(service, running, fault, result, usual)
        await end()
        await made.until_settled(others=OTHERS)
        assert await running.metric("dead_letters_total", reason="rejected_token") == 0
        assert await running.stop() == 0
        assert service.secret not in running.log
    return await made.account(cause="refused by the client")


async def _one(service: KeyService, running: WorkerProcess, fault: str, result: str, usual: float) -> None:
    """Hold the fault until deliveries are deferred, and the other issuer's are not; then end it."""
    deferred = await running.metric("deferrals_total", iss=ISSUER, cause="signing")
    begun = await running.metric("signatures_total", signer=service.kind, result=result)
    service.mood.be(fault)
    await beyond(begun, running, "signatures_total", signer=service.kind, result=result)
    await are_unmoved(running, usual)
    await beyond(deferred, running, "deferrals_total", iss=ISSUER, cause="signing")
    service.mood.be("well")
    if result == "wrong":  # somebody corrected it; without a signal, a worker looks within half a minute
        running.send(signal.SIGHUP)
    signed = await running.metric("signatures_total", signer=service.kind, result="ok")
    await beyond(signed + AGAIN, running, "signatures_total", signer=service.kind, result="ok")
