"""A key service that fails under load, in each of its ways, one after the other."""

import signal
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from tests.faults.embedded_rig import embedded
from tests.faults.faulty_key_services import TOLD, KeyService, ServiceFault
from tests.faults.other_issuer import OTHERS, are_unmoved, beyond, others_logouts
from tests.faults.rig import CLIENTS, answers, load
from tests.system.ledger import Account
from tests.system.site import ISSUER, OTHER, client
from tests.system.worker_process import WorkerProcess, worker

AGAIN = 20  # signatures after each fault


async def suffer(
    folder: Path, opened: AbstractAsyncContextManager[KeyService], faults: Sequence[ServiceFault], rate: int
) -> Account:
    """Make the faults under load. The service signs for one issuer."""
    async with opened as service, embedded(folder) as made:
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
            for fault in faults:
                await _one(service, running, fault, TOLD[fault], usual)
            await end()
            await made.until_settled(others=OTHERS)
            assert await running.metric("dead_letters_total", reason="rejected_token") == 0
            assert await running.stop() == 0
            assert service.secret not in running.log
        return await made.account(cause="refused by the client")


async def _one(service: KeyService, running: WorkerProcess, fault: ServiceFault, result: str, usual: float) -> None:
    """The fault, until deliveries were put off and the other issuer's were not; and then its end."""
    deferred = await running.metric("deferrals_total", iss=ISSUER, cause="signing")
    begun = await running.metric("signatures_total", signer=service.kind, result=result)
    service.mood.be(fault)
    await beyond(begun, running, "signatures_total", signer=service.kind, result=result)
    await are_unmoved(running, usual)
    await beyond(deferred, running, "deferrals_total", iss=ISSUER, cause="signing")
    service.mood.be(ServiceFault.WELL)
    if result == "wrong":  # somebody corrected it; a worker that nobody tells looks within half a minute
        running.send(signal.SIGHUP)
    signed = await running.metric("signatures_total", signer=service.kind, result="ok")
    await beyond(signed + AGAIN, running, "signatures_total", signer=service.kind, result="ok")
