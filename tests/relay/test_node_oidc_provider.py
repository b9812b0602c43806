"""node-oidc-provider, which sends each token once, within 2.5 s, while the user waits."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web
from joserfc.jwk import RSAKey

from notifier.model.client import Algorithm
from tests.relay.lab import CLIENTS, RELAY, SECRET, Kind, Lab, relay_lab
from tests.relay.tokens import FORGED, hostile_tokens, logout_token, new_key
from tests.support.rabbitmq_node import rabbitmq_node
from tests.system.loopback import LoopbackServer
from tests.system.tcp_proxy import Ending, TcpProxy
from tests.system.waiting import until
from tests.system.worker_process import worker

pytestmark = pytest.mark.timeout(400)  # the first run installs the packages
PROVIDER = Kind(
    path="",
    keys="/jwks",
    algorithm=Algorithm.RS256,
    answers={"login": "alice", "password": "x", "logout": "yes"},
)
OUTAGE_SECONDS = 60.0
BOTH = range(2)
SIGN_OUTS = 20  # during an outage of the broker
RESTART_SECONDS = 60.0


async def run_provider(lab: Lab, *keys: RSAKey) -> None:
    """Run the server with these keys, the first of which signs."""
    file = lab.folder / "server-keys.json"
    file.write_text(json.dumps({"keys": [key.as_dict(private=True) for key in keys]}))
    clients = [registration(lab, name) for name in CLIENTS]
    await lab.run_script("server", "provider.mjs", lab.own, KEYS=str(file), CLIENTS=json.dumps(clients))


def registration(lab: Lab, name: str) -> Mapping[str, Any]:
    """Return a client as the server has it. The users of `mail` have other names there."""
    return {
        "client_id": name,
        "client_secret": SECRET,
        "redirect_uris": [f"{lab.client_url(name)}/callback"],
        "post_logout_redirect_uris": [lab.client_url(name)],
        "backchannel_logout_uri": lab.logout_address,
        "backchannel_logout_session_required": True,
        "subject_type": "pairwise" if name == "mail" else "public",
    }


@asynccontextmanager
async def everything(
    folder: Path, queue: tuple[str, str], key: RSAKey, through: int | None = None, *, spool: bool = False
) -> AsyncIterator[Lab]:
    """Run the server with this key, both workers and both clients.

    `through`: see `Lab.nginx_block`. `spool`: each worker has one, and nginx follows the workers' readiness.
    """
    async with relay_lab(folder, PROVIDER, through) as lab:
        await run_provider(lab, key)
        lab.write_sites(queue, lab.registry(pairwise=("mail",)), jwks_uri=lab.reader.url)
        for site in lab.sites if spool else ():
            site.config["spool"] = {"folder": "spool"}
            site.write()
        async with lab.running_workers():
            for name in CLIENTS:
                await lab.run_client(name)
            async with lab.following_readiness() if spool else nullcontext():
                yield lab


async def test_sign_out_reaches_a_client_that_was_down_and_forged_tokens_reach_none(
    tmp_path: Path, amqp_url: str, prefix: str
) -> None:
    """The client is down for a minute; meanwhile strangers, a loop, copies and unknown clients come."""
    key = new_key("server-1")
    async with everything(tmp_path, (amqp_url, prefix), key) as lab, lab.browser() as alice:
        assert (await lab.read_keys())[0] == "server-1"
        assert len(await lab.read_keys()) == 2
        await lab.sign_in(alice, *CLIENTS)
        await lab.toggle_listener("mail")
        is_over = asyncio.get_running_loop().time() + OUTAGE_SECONDS
        await lab.sign_out(alice, "shop")
        await lab.until_attempts(lambda outcomes: outcomes == ["delivered"], client_id="shop")
        await refuse_strangers(lab, key)
        await accept_others(lab, key)
        await until(later_than(is_over), bool)
        await lab.toggle_listener("mail")
        await lab.until_signed_out(alice, *CLIENTS)
        outcomes = [line["outcome"] for line in lab.attempts(client_id="mail", sub="alice-at-mail")]
        assert outcomes.count("delivered") == 1
        assert len(outcomes) > 3


def later_than(moment: float) -> Any:
    """Return a question: whether it is later."""

    async def ask() -> bool:
        return asyncio.get_running_loop().time() > moment

    return ask


async def refuse_strangers(lab: Lab, key: RSAKey) -> None:
    """No token of a stranger is taken, by neither worker."""
    before = await lab.metric("upstream_requests_total", result="accepted")
    for why, token in hostile_tokens(key, lab.issuer):
        for index in BOTH:
            status, text = await lab.post_token(token, index)
            assert status == 400, (why, status, text)
    assert (await lab.post_token("x" * 100_000, 0))[0] == 413
    assert await lab.metric("upstream_requests_total", result="accepted") == before


async def accept_others(lab: Lab, key: RSAKey) -> None:
    """Genuine tokens: a copy, two clients at once, an unknown client, and a client whose address is the relay."""
    copied = logout_token(key, lab.issuer, sid="copied")
    assert [(await lab.post_token(copied, index))[0] for index in (0, 0, None)] == [200, 200, 200]
    assert (await lab.post_token(logout_token(key, lab.issuer, sid="two", aud=["shop", "mail"]), 0))[0] == 200
    assert (await lab.post_token(logout_token(key, lab.issuer, sid="unknown", aud="nobody"), 1))[0] == 200
    assert (await lab.post_token(logout_token(key, lab.issuer, sid="looped", aud="looped"), 1))[0] == 200
    for sid in ("copied", "two"):
        await lab.until_attempts(lambda outcomes: outcomes == ["delivered"], sid=sid, client_id="shop")
    await until(lambda: lab.metric("upstream_requests_total", result="loop"), bool)
    await until(lambda: lab.metric("dead_letters_total", client_id="looped"), bool)
    await until(lambda: lab.metric("dead_letters_total", reason="unknown_client"), bool)


async def test_sign_ins_go_on_whatever_keys_notifier_can_read(tmp_path: Path, amqp_url: str, prefix: str) -> None:
    """The server's keys rotate; notifier reads them, or cannot, or is led to itself."""
    first, second, third = (new_key(f"server-{number}") for number in (1, 2, 3))
    async with everything(tmp_path, (amqp_url, prefix), first) as lab:
        own = (await lab.read_keys())[1]
        await lab.stop("server")
        await run_provider(lab, second)
        for index in BOTH:
            assert (await lab.post_token(logout_token(second, lab.issuer), index))[0] == 200
            assert (await lab.post_token(logout_token(first, lab.issuer, sid=FORGED), index))[0] == 400
            assert await lab.read_joined_set(index) == (200, ["server-2", own])
        await sign_in_and_out(lab)

        for instead in ((404, ""), (200, '{"keys": []}')):
            lab.reader.instead = instead
            await until_joined(lab, 503, [])
            assert await lab.read_keys() == ["server-2"]
        await lab.stop("server")
        await run_provider(lab, third)
        assert await lab.read_keys() == ["server-3"]
        await sign_in(lab)

        lab.reader.instead = None
        await until_joined(lab, 200, ["server-3", own])
        await sign_in_and_out(lab)
        lab.reader.leads_to = f"http://127.0.0.1:{lab.web[0]}/relays/server/jwks"
        await until(partial(lab.read_joined_set, 0), lambda answer: answer == (508, []))
        lab.reader.leads_to = lab.own_jwks_uri
        await until_joined(lab, 200, ["server-3", own])
        await lab.reader.refuse()
        await until_held(lab)
        assert await lab.read_keys() == ["server-3", own]
        assert not lab.attempts(sid=FORGED)


async def test_sign_ins_go_on_while_the_broker_is_stopped_for_a_minute(
    tmp_path: Path, amqp_url: str, prefix: str
) -> None:
    """Through a proxy that asks `/readyz` and has no fallback: clients get their keys from notifier, or not at all."""
    broker, labs = urlsplit(amqp_url), list[Lab]()

    async def pass_on(request: web.BaseRequest) -> web.StreamResponse:
        workers = [each for lab in labs for each in zip(lab.workers, lab.web, strict=True)]
        for running, port in workers:
            if (await running.get("/readyz"))[0] == 200:
                url, form = f"http://127.0.0.1:{port}{request.path}", await request.post()
                async with aiohttp.request(request.method, url, data=form or None) as answer:
                    return web.Response(status=answer.status, body=await answer.read())
        return web.Response(status=503)

    assert broker.hostname
    async with TcpProxy(broker.hostname, broker.port or 5672) as network, LoopbackServer(pass_on) as proxy:
        through = amqp_url.replace(f"{broker.hostname}:{broker.port}", f"127.0.0.1:{network.port}")
        async with everything(tmp_path, (through, prefix), new_key("server-1"), proxy.port) as lab:
            labs.append(lab)
            await sign_in(lab)
            network.refuse()
            network.end(Ending.RESET)
            is_over = asyncio.get_running_loop().time() + OUTAGE_SECONDS
            while asyncio.get_running_loop().time() < is_over:
                await sign_in(lab)
            for running in lab.workers:
                status, text = await running.get("/readyz")
                assert (status, json.loads(text)["consuming"]) == (200, False)
                assert json.loads(text)["problem"]
            await network.accept()
            await until(lambda: lab.metric("ready"), lambda ready: ready == len(lab.workers))
            await sign_in_and_out(lab)


async def until_joined(lab: Lab, status: int, kids: list[str]) -> None:
    """Wait until both workers answer this."""
    for index in BOTH:
        await until(partial(lab.read_joined_set, index), lambda answer: answer == (status, kids))


async def until_held(lab: Lab) -> None:
    """Wait until a worker answers from its memory."""

    async def ask() -> float:
        await lab.read_joined_set(0)
        return await lab.metric("relay_jwks_requests_total", result="held")

    await until(ask, bool)


async def sign_in(lab: Lab) -> None:
    """A new user signs in, at clients that have read no keys yet."""
    for name in CLIENTS:
        await lab.stop(name)
        await lab.run_client(name)
    async with lab.browser() as alice:
        await lab.sign_in(alice, *CLIENTS)


async def sign_in_and_out(lab: Lab) -> None:
    """A new user signs in and out."""
    async with lab.browser() as alice:
        await lab.sign_in(alice, *CLIENTS)
        await lab.sign_out(alice, "shop")
        await lab.until_signed_out(alice, *CLIENTS)


@pytest.mark.parametrize("outage", ["killed", "frozen"])
async def test_sign_outs_during_an_outage_of_the_broker_end_all_sessions(tmp_path: Path, outage: str) -> None:
    """Workers with a spool stay ready, so nginx sends to both, and they accept all tokens. One is killed meanwhile, and
    a worker with its folder publishes what it had.
    """
    with rabbitmq_node() as node:
        async with AsyncExitStack() as stack:
            lab = await stack.enter_async_context(
                everything(tmp_path, (node.url, "notifier"), new_key("server-1"), spool=True)
            )
            users = [await stack.enter_async_context(lab.browser()) for _ in range(SIGN_OUTS)]
            for user in users:
                await lab.sign_in(user, *CLIENTS)
            began_at = asyncio.get_running_loop().time()
            try:
                begin = asyncio.to_thread(node.kill if outage == "killed" else node.freeze)
                await asyncio.gather(begin, *(lab.sign_out(user, "shop") for user in users[1:]))
                assert [await each.metric("spool_entries", sender=RELAY) > 0 for each in lab.workers] == [True, True]
                assert lab.ready_ports == lab.web
                lab.workers[0].send(signal.SIGKILL)
                await lab.workers[0].ended()
                await until(later_than(began_at), lambda _: lab.ready_ports == lab.web[1:])
                await lab.sign_out(users[0], "shop")
                await until(later_than(began_at + RESTART_SECONDS), bool)
            finally:
                await asyncio.to_thread(node.start if outage == "killed" else node.thaw)
            lab.workers[0] = await stack.enter_async_context(worker(lab.sites[0], ready=False))
            for user in users:
                await lab.until_signed_out(user, *CLIENTS)
            assert "refused" not in lab.log("server")
            accepted = [line["jti"] for line in lab.attempts(outcome="delivered")]
            assert len(accepted) == len({*accepted})
            await until(later_than(began_at), lambda _: lab.ready_ports == lab.web)
