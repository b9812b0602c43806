"""Deliveries deferred for an internal fault follow once it is over, however long it lasted, and no others do.

The waits grow with an outage, to more than four minutes. Deliveries are written into the queue as it leaves them.
"""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from aiohttp import web

from notifier.model.delivery import Delivery
from notifier.model.documents.documents import dump_delivery
from notifier.model.message import Kind, MessageDraft
from notifier.model.outcome import Cause
from notifier.queues.building import build_queue
from notifier.settings.queue_settings import QueueSettings
from tests.support.deliveries import make_delivery
from tests.support.softhsm import SoftHsm
from tests.system.clients import Clients
from tests.system.command import notifier_at
from tests.system.loopback import LoopbackServer
from tests.system.site import ISSUER, OTHER, Site, client
from tests.system.worker_process import worker

SOON = 15.0  # seconds after the key signs again; 5 on a machine that has nothing else to do
LONG = 250.0  # seconds that each has still to wait


def put_off(number: int, cause: Cause = Cause.SIGNING, iss: str = ISSUER, client_id: str = "shop") -> Delivery:
    """A delivery after an outage of ten minutes."""
    return make_delivery(
        id=f"d{number}", event_id=f"e{number}", id_given=True, iss=iss, client_id=client_id, sub="alice",
        sid=f"s{number}", first_taken_at=time.time() - 600, uncounted_seconds=600.0, waited_for=(cause,), deferrals=9,
        deferred_for=cause,
    )  # fmt: skip


async def waiting(site: Site, *deliveries: Delivery, seconds: float = LONG) -> None:
    """Have these wait in the queue of the site."""
    queue = build_queue(QueueSettings.model_validate(site.config["queue"]))
    await queue.open()
    await queue.wait_until_ready()
    due = time.time() + seconds
    for start in range(0, len(deliveries), 500):
        batch = deliveries[start : start + 500]
        await asyncio.gather(*(queue.publish_later(_message(each, due), due=due) for each in batch))
    await queue.close()


def _message(delivery: Delivery, due: float) -> MessageDraft:
    return MessageDraft(kind=Kind.DELIVERY, body=dump_delivery(delivery, due=due), message_id=delivery.id)


def site_of(folder: Path, place: tuple[str, str], hsm: SoftHsm, clients: Clients, module: Path) -> Site:
    """One issuer whose key is in the HSM, and one whose key is a file."""
    site = Site(folder, *place)
    site.config["issuers"][ISSUER]["keys"] = [{"pkcs11": hsm.settings("ec", module)}]
    site.write()
    site.write_clients([client("shop", clients.url("shop")), client("mail", clients.url("mail"), OTHER)])
    return site


@pytest.fixture(scope="module")
def hsm(tmp_path_factory: pytest.TempPathFactory) -> SoftHsm:
    """One token for all tests."""
    return SoftHsm(tmp_path_factory.mktemp("hsm"))


def sessions(deliveries: Iterable[Delivery]) -> set[str]:
    """Return the sessions of these deliveries."""
    return {str(each.sid) for each in deliveries}


@pytest.mark.full
async def test_deliveries_follow_once_the_key_signs_again(place: tuple[str, str], tmp_path: Path, hsm: SoftHsm) -> None:
    """No worker has seen it sign, and none needs a request. Deliveries with another cause or issuer stay deferred.

    The worker is killed while the key fails; deliveries of an earlier worker follow at the start.
    """
    faulty = hsm.faulty()
    faulty.be("error")
    async with Clients() as clients:
        site = site_of(tmp_path, place, hsm, clients, faulty.path)
        theirs = [put_off(number) for number in range(3)]
        await waiting(site, *theirs, put_off(7, Cause.PROXY))
        async with worker(site, settings=hsm.environ) as running:
            await running.until_logged("signer_failing")
            running.send(signal.SIGKILL)
            await running.ended()
        async with worker(site, settings=hsm.environ) as running:
            await running.until_logged("deliveries_freed", lambda line: line["causes"] == {"proxy": 1})  # by the start
            await waiting(site, put_off(8, Cause.PROXY), put_off(9, iss=OTHER, client_id="mail"))
            faulty.be("well")
            began = time.monotonic()
            await clients.until_notified("shop", sessions(theirs))
            assert time.monotonic() - began < SOON
            await running.until_logged("deliveries_freed", lambda line: line["causes"].get("signing", 0) >= len(theirs))
            assert await running.stop() == 0
        assert {"s8", "s9"}.isdisjoint(hit.who for hit in clients.hits)
        left = [put_off(4), put_off(5)]
        await waiting(site, *left)
        async with worker(site, settings=hsm.environ) as running:
            began = time.monotonic()
            await clients.until_notified("shop", sessions([*theirs, *left]))
            assert time.monotonic() - began < SOON
            assert await running.stop() == 0
        assert max(Counter(hit.who for hit in clients.hits).values()) == 1


@pytest.mark.full
async def test_deferral_stored_during_key_recovery_is_released(tmp_path: Path, hsm: SoftHsm) -> None:
    """Another worker stores it after the pass of this one."""
    faulty = hsm.faulty()
    faulty.be("error")
    async with Clients() as clients:
        site = site_of(tmp_path, (f"sqlite:{tmp_path / 'q.db'}", "notifier"), hsm, clients, faulty.path)
        await waiting(site, put_off(1))
        async with worker(site, settings=hsm.environ) as running:
            await running.until_logged("signer_failing")
            faulty.be("well")
            await running.until_logged("deliveries_freed")
            await waiting(site, put_off(2))
            began = time.monotonic()
            await clients.until_notified("shop", {"s1", "s2"})
            assert time.monotonic() - began < SOON
            assert await running.stop() == 0


async def test_proxy_success_releases_other_deliveries_of_the_client(tmp_path: Path) -> None:
    """Deliveries deferred for another cause, or at another client, are not. (All were deferred after the start.)"""
    async with Clients() as clients:
        site = Site(tmp_path, f"sqlite:{tmp_path / 'q.db'}")
        site.write_clients([client(name, "http://127.0.0.1:1/out", proxy=clients.base) for name in ("shop", "mail")])
        site.write()
        theirs = [put_off(number, Cause.PROXY) for number in range(3)]
        await waiting(site, put_off(3, Cause.PROXY))
        clients.judge = lambda _hit: 407
        async with worker(site) as running:
            await running.until_logged("deliveries_freed")
            await running.until_logged("deferral", lambda line: line["cause"] == "proxy")
            await waiting(site, *theirs, put_off(8), put_off(9, Cause.PROXY, client_id="mail"))
            clients.judge = lambda _hit: 200
            event = {"iss": ISSUER, "sub": "alice", "sid": "new", "clients": ["shop"]}
            began = time.monotonic()
            assert (await running.post(event))[0] == 202
            await running.until_metric(5, "deliveries_settled_total", fate="delivered")
            assert time.monotonic() - began < SOON
            assert await running.stop() == 0


async def test_a_start_releases_deliveries_whose_cause_is_over(place: tuple[str, str], tmp_path: Path) -> None:
    """By its registry and keys; the change came with the restart. A pause that the client requested goes on."""
    async with Clients() as clients:
        site = Site(tmp_path, *place)
        mail = client("mail", clients.url("mail"))
        site.write_clients([client("shop", clients.url("shop")), mail | {"notifier": {"paused": True}}])
        causes = (Cause.PAUSED, Cause.UNKNOWN, Cause.SIGNING, Cause.TLS_FILES)
        theirs = [put_off(number, cause) for number, cause in enumerate(causes)]
        others = [
            put_off(7, Cause.RETRY_AFTER),
            put_off(8, Cause.PAUSED, client_id="mail"),
            put_off(9, iss="https://x"),
        ]
        await waiting(site, *theirs, *others)
        began = time.monotonic()
        async with worker(site) as running:
            await clients.until_notified("shop", sessions(theirs))
            assert time.monotonic() - began < SOON
            await running.until_logged("deliveries_freed", lambda line: line["deliveries"] == len(theirs))
            assert await running.stop() == 0
        assert (len(clients.at("shop")), clients.at("mail")) == (len(theirs), [])


async def test_a_start_releases_deliveries_once_registry_sources_are_read(tmp_path: Path) -> None:
    """It is not a change of all clients: a pause that the client requested goes on."""
    answers = asyncio.Event()

    async def scim(_request: web.BaseRequest) -> web.Response:
        await answers.wait()
        return web.json_response([client("shop", clients.url("shop"))])

    async with Clients() as clients, LoopbackServer(scim) as source:
        site = Site(tmp_path, f"sqlite:{tmp_path / 'q.db'}")
        site.config["registry"] = {"sources": [{"http": {"url": source.base}, "every": "10m", "issuer": ISSUER}]}
        site.write()
        theirs = [put_off(number, Cause.UNKNOWN) for number in range(3)]
        await waiting(site, *theirs, put_off(9, Cause.RETRY_AFTER))
        async with worker(site, ready=False) as running:
            await running.until_logged("listening")
            answers.set()
            await clients.until_notified("shop", sessions(theirs))
            await running.until_logged("deliveries_freed", lambda line: line["deliveries"] == len(theirs))
            assert (running.logged("clients_freed"), await running.stop()) == ([], 0)
        assert len(clients.at("shop")) == len(theirs)


@pytest.mark.full
async def test_deliveries_follow_when_a_registry_pause_ends(place: tuple[str, str], tmp_path: Path) -> None:
    """An operator who tries it during the pause learns why it still waits, and needs no `--force`."""
    async with Clients() as clients:
        site = Site(tmp_path, *place)
        shop = client("shop", clients.url("shop"))
        site.write_clients([shop | {"notifier": {"paused": True}}, client("mail", clients.url("mail"))])
        site.write()
        theirs = [put_off(number, Cause.PAUSED) for number in range(3)]
        await waiting(site, *theirs, put_off(9, Cause.SLOT, client_id="mail"))
        async with worker(site) as running:
            tried = await notifier_at(site, "retry", "--client-id", "shop", "--iss", ISSUER)
            assert (tried.returncode, "--force" in tried.stdout) == (1, False), tried.stderr
            assert "set paused to false in the registry" in tried.stdout
            site.write_clients([shop, client("mail", clients.url("mail"))])
            began = time.monotonic()
            await clients.until_notified("shop", sessions(theirs))
            assert time.monotonic() - began < SOON
            assert await running.stop() == 0
        assert clients.notified("mail") == []
