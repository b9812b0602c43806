"""What the console asks, at running workers: any of them answers for all, and nobody sees what is not theirs."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from notifier.network.listeners.openapi import PATH
from notifier.service.operator_routes import GONE
from tests.network.listeners.described import require_described
from tests.system.clients import Clients
from tests.system.site import ISSUER, OTHER, Site, client
from tests.system.test_retry import Answers, event, site_of
from tests.system.waiting import until
from tests.system.worker_process import WorkerProcess, worker

HOSTILE = "../..?all=true#<b>"


def site_of_two(folder: Path, clients: Clients, place: tuple[str, str]) -> Site:
    """Write clients of two issuers. One client has a name that no path can contain."""
    site = site_of(folder, clients, place)
    rows = [client(name, clients.url(name)) for name in ("shop", "wiki")]
    rows += [client("forum", clients.url("forum"), OTHER), client(HOSTILE, clients.url("odd"))]
    site.write_clients(rows)
    return site


async def got(running: WorkerProcess, path: str, token: str = "r", **query: object) -> dict[str, Any]:
    """Return the document of a GET, after a check against its OpenAPI schema."""
    status, document = await running.ask("GET", f"/v1/{path}?{urlencode(query)}", token)
    assert status == 200, (path, status, document)
    require_described((await running.ask("GET", PATH))[1], "GET", f"/v1/{path}", status, document)
    return dict(document)


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
async def test_a_flag_needs_no_value_and_a_wrong_token_is_401(place: tuple[str, str], tmp_path: Path) -> None:
    """As in docs/api.md. A page beyond the countable range is an error of the request."""
    async with Clients() as clients, worker(site_of_two(tmp_path, clients, place)) as running:
        assert (await running.ask("GET", "/v1/recent?good", "r"))[0] == 200
        assert (await running.ask("POST", "/v1/reload?accept_loss", "r"))[0] == 200
        assert (await got(running, "clients", skip=5))["clients"] == []
        assert (await running.ask("GET", f"/v1/clients?skip={10**30}", "r"))[0] == 400
        for method, path in GONE:
            status, refusal = await running.ask(method, path, "r")
            assert (status, refusal["title"]) == (410, f"{method} {path} is gone: {GONE[method, path]}")
        assert (await running.ask("HEAD", "/v1/registry", "r"))[0] == 410
        status, refusal = await running.ask("GET", "/v1/whoami", "a typing mistake")
        assert (status, refusal["title"]) == (401, "The API does not know this token")
        for path in ("overview", "recent", "clients", "keys", "explain/refused"):
            assert (await running.ask("GET", f"/v1/{path}", "a typing mistake"))[0] == 401, path


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
async def test_an_incident_is_seen(place: tuple[str, str], tmp_path: Path) -> None:
    """From the overview to the client, its answers, its registration, and a user's deliveries."""
    async with Clients(Answers(shop=503)) as clients, worker(site_of_two(tmp_path, clients, place)) as running:
        assert (await got(running, "whoami"))["scopes"] == ["read", "repair"]
        assert (await got(running, "overview"))["states"]["well"] == 4
        for number in range(3):
            assert (await running.post(event(number, "shop", "wiki")))[0] == 202
        assert (await running.post({**event(9, "forum"), "iss": OTHER, "sub": "bob"}))[0] == 202

        async def down() -> dict[str, Any]:
            return await got(running, "overview")

        at_first = await until(down, lambda document: document["waits"]["known"] > 0)
        assert at_first["waits"]["all"] >= at_first["waits"]["known"]  # before the next count of the queues
        seen = await until(down, lambda document: document["clients"] != [] and document["waits"]["all"] == 3)
        [shop] = seen["clients"]
        assert (shop["client_id"], shop["status"], shop["waits"] >= 3) == ("shop", 503, True)
        assert shop["failing_since"] <= shop["last_failure"]
        assert seen["workers"]["each"][0]["consuming"] is True
        sums = dict(
            zip(
                seen["timeline"]["series"],
                map(sum, list(zip(*seen["timeline"]["steps"], strict=True))[1:]),
                strict=True,
            )
        )
        assert sums["delivered"] == 4
        assert sums["failed"] >= 1

        page = await got(running, "clients", rows=2)
        assert (next(row["client_id"] for row in page["clients"]), page["total"]) == ("shop", 4)
        assert [row["client_id"] for row in (await got(running, "clients", q="WIK"))["clients"]] == ["wiki"]
        assert (await got(running, "clients", state="troubled"))["total"] == 1
        assert [row["client_id"] for row in (await got(running, "clients", order="name", iss=OTHER))["clients"]] == [
            "forum"
        ]
        assert (await got(running, "clients", q=HOSTILE))["total"] == 1

        one = await got(running, "client", iss=ISSUER, client_id="shop")
        assert (one["answers"][0]["kind"], one["answers"][0]["status"]) == ("failed", 503)
        assert one["client"]["uri"] == clients.url("shop")
        assert sum(minute[2] for minute in one["minutes"]) >= 1
        assert (await got(running, "client", iss=ISSUER, client_id=HOSTILE))["client"]["tried"] is False
        assert (await running.ask("GET", f"/v1/client?iss={ISSUER}&client_id=nobody", "r"))[0] == 404
        values = (await got(running, "client/registration", iss=ISSUER, client_id="shop"))["values"]
        origins = {value["member"]: value["from"] for value in values}
        assert origins["backchannel_logout_uri"] == "file (clients.yaml)"
        assert origins["notifier.timeout"] == "default"

        status, found = await running.ask("POST", "/v1/find", "r", {"subject": "bob"})
        assert (status, [(fact["client_id"], fact["kind"]) for fact in found["facts"]]) == (
            200,
            [("forum", "delivered")],
        )
        assert "bob" not in json.dumps(found)
        [looked] = running.logged("looked_for")
        assert (looked["who"], "bob" in looked["subject"]) == ("sre", False)
        assert (await running.ask("POST", "/v1/find", "r", {}))[0] == 400

        news = await got(running, "recent", good="true")
        assert {"down", "failed", "delivered"} <= {fact["kind"] for fact in news["facts"]}
        again = await got(running, "recent", after=news["next"], good="true")
        assert not [fact for fact in again["facts"] if fact in news["facts"]]
        assert (await running.ask("GET", "/v1/recent?after=x", "r"))[0] == 400

        keys = (await got(running, "keys"))["keys"]
        assert {key["iss"] for key in keys} == {ISSUER, OTHER}
        assert (keys[0]["algs"], keys[0]["use"]) == (["ES256"], "signs")
        assert "Retry-After" in (await got(running, "explain/retry_after"))["text"]
        assert (await running.ask("GET", "/v1/explain/nothing", "r"))[0] == 404


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
async def test_a_token_of_one_issuer_sees_nothing_of_others(place: tuple[str, str], tmp_path: Path) -> None:
    """Neither clients nor facts nor keys; and it may not ask for what concerns all."""
    async with Clients(Answers(shop=503)) as clients, worker(site_of_two(tmp_path, clients, place)) as running:
        assert (await running.post({**event(1, "shop"), "sub": "carol"}))[0] == 202
        await until(lambda: got(running, "overview"), lambda document: document["clients"] != [])
        document = [await got(running, path, "o") for path in ("overview", "clients", "recent", "keys", "whoami")]
        assert ISSUER not in json.dumps(document)
        assert "shop" not in json.dumps(document)
        assert (await running.ask("POST", "/v1/find", "o", {"subject": "carol"}))[1]["facts"] == []
        for path in ("client", "client/registration"):
            assert (await running.ask("GET", f"/v1/{path}?iss={ISSUER}&client_id=shop", "o"))[0] == 403
        for method, path, body in (
            ("GET", "acts", None), ("GET", "doctor", None), ("POST", "doctor", None),
            ("POST", "canary", {"client_id": "shop", "iss": ISSUER}),
        ):  # fmt: skip
            assert (await running.ask(method, f"/v1/{path}", "o", body))[0] == 403, path


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
async def test_operators_run_a_canary_and_the_doctor(place: tuple[str, str], tmp_path: Path) -> None:
    """A canary ends no session, and its answer is explained. Who sent it is in the log, and among the acts."""
    async with Clients(Answers(shop=400)) as clients, worker(site_of_two(tmp_path, clients, place)) as running:
        status, document = await running.ask("POST", "/v1/canary", "r", {"client_id": "shop", "iss": ISSUER})
        assert (status, document["findings"][0]["level"]) == (200, "warning")
        assert "answered 400" in document["findings"][0]["text"]
        [hit] = clients.at("shop")
        assert hit.claims["sub"].startswith("notifier-canary-")
        [act] = (await got(running, "acts"))["acts"]
        [line] = running.logged("canary_sent")
        assert (act["action"], act["who"], line["who"]) == ("canary_sent", "sre", "sre")
        assert (await running.ask("POST", "/v1/canary", "r", {"client_id": "no", "iss": ISSUER}))[0] == 404
        assert (await running.ask("POST", "/v1/reload", "r"))[0] == 200
        acts = (await got(running, "acts"))["acts"]
        assert [act["who"] for act in acts if act["action"] == "reload_asked"] == ["sre (claimed)", "sre"]
        assert (await got(running, "doctor"))["state"] == "never"
        assert (await running.ask("POST", "/v1/doctor", "r"))[1]["state"] == "running"
        looked = await until(lambda: got(running, "doctor"), lambda document: document["state"] == "ended")
        assert looked["problem"] is None
        assert {"queue", "worker"} <= {finding["area"] for finding in looked["findings"]}


@pytest.mark.full
async def test_any_worker_answers_for_all(tmp_path: Path, amqp_url: str, prefix: str) -> None:
    """Each worker shows the entries of both. A client that answers one of them is not down."""
    answers = Answers(shop=503)
    async with Clients(answers) as clients:
        site = site_of_two(tmp_path, clients, (amqp_url, prefix))
        async with worker(site) as one, worker(site) as two:
            await asyncio.gather(*(each.until_logged("consuming") for each in (one, two)))
            for number in range(20):
                assert (await one.post(event(number, "shop", "wiki")))[0] == 202
            for each in (one, two):
                await until(
                    lambda each=each: got(each, "overview"),  # type: ignore[misc]
                    lambda document: (
                        document["workers"]["answered"] == 2
                        and [c["client_id"] for c in document["clients"]] == ["shop"]
                    ),
                )
            news = await got(one, "recent", good="true")
            assert len({fact["worker"] for fact in news["facts"]}) == 2
            two.send(signal.SIGSTOP)
            try:
                meanwhile = await got(one, "recent", good="true", after=news["next"])
            finally:
                two.send(signal.SIGCONT)
            listed = {(fact["worker"], fact["n"]) for each in (news, meanwhile) for fact in each["facts"]}
            later = await until(
                lambda: got(one, "recent", good="true", after=meanwhile["next"]),
                lambda document: document["next"].count("=") == 2,
            )
            assert not listed & {(fact["worker"], fact["n"]) for fact in later["facts"]}, "listed twice after a silence"
            answers.by_path.clear()
            for each in (one, two):
                await until(
                    lambda each=each: got(each, "overview"),  # type: ignore[misc]
                    lambda document: document["states"]["well"] == 4 and document["waits"] == {"all": 0, "known": 0},
                )


@pytest.mark.full
@pytest.mark.parametrize("console", [False, True])
async def test_the_console_includes_workers_without_one(
    tmp_path: Path, amqp_url: str, prefix: str, console: bool
) -> None:
    """Also a worker without API: it sends its state, and no entries."""
    async with Clients(Answers(shop=503)) as clients:
        site = site_of_two(tmp_path, clients, (amqp_url, prefix))
        async with worker(site) as one:
            if console:
                del site.config["api"]
            else:
                site.config["api"]["console"] = {"enabled": False}
            site.write()
            async with worker(site):
                await until(lambda: got(one, "overview"), lambda document: document["workers"]["answered"] == 2)
                for number in range(20):
                    assert (await one.post(event(number, "shop", "wiki")))[0] == 202
                seen = await until(
                    lambda: got(one, "overview"),
                    lambda document: document["workers"]["answered"] == 2 and document["waits"]["known"] == 20,
                )
                assert len(seen["workers"]["each"]) == 2
                await until(  # what is on its way between two looks waits nowhere
                    lambda: got(one, "client", iss=ISSUER, client_id="shop"),
                    lambda document: [len(document["workers"]), document["client"]["waits"]] == [2, 20],
                )
                workers = {fact["worker"] for fact in (await got(one, "recent", good="true"))["facts"]}
                assert len(workers) == 1


@pytest.mark.full
async def test_a_bound_token_gets_no_data_of_other_issuers(tmp_path: Path, amqp_url: str, prefix: str) -> None:
    """Neither of what another worker met, nor of a job that runs there, nor does it end one."""
    async with Clients(Answers(shop=503)) as clients:
        site = site_of_two(tmp_path, clients, (amqp_url, prefix))
        async with worker(site) as one, worker(site) as two:
            assert (await one.post({**event(1, "shop"), "sub": "carol"}))[0] == 202
            await until(lambda: got(two, "recent"), lambda document: document["facts"] != [])
            status, job = await one.ask("POST", "/v1/retry", "r", {"client_id": "shop", "iss": ISSUER})
            assert status == 202
            for running in (one, two):
                document = [await got(running, path, "o") for path in ("overview", "clients", "recent", "keys", "jobs")]
                assert ISSUER not in json.dumps(document)
                assert "shop" not in json.dumps(document)
                for body in ({"subject": "carol"}, {"event_id": "event-1"}):
                    assert (await running.ask("POST", "/v1/find", "o", body))[1]["facts"] == []
                for method in ("GET", "DELETE"):
                    assert (await running.ask(method, f"/v1/jobs/{job['id']}", "o"))[0] == 404
            assert (await two.ask("GET", f"/v1/jobs/{job['id']}", "r"))[0] == 200
