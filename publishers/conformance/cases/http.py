"""Over HTTP 202 alone confirms."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from publishers.conformance.api import Answer, Api, api
from publishers.conformance.harness import Harness
from tests.system.site import API_TOKEN, Site
from tests.system.worker_process import worker


@asynccontextmanager
async def _publishing_to(harness: Harness, folder: Path) -> AsyncIterator[Api]:
    async with api(folder) as made:
        await harness.run(url=made.url, secret_file=made.secret_file)
        yield made
        assert made.token not in harness.log()


@pytest.mark.starts
async def test_only_202_confirms(harness: Harness, tmp_path: Path) -> None:
    """After any other answer, and after none, the event is sent again with its id; `Retry-After` is kept."""
    async with _publishing_to(harness, tmp_path) as http:
        answers = (
            Answer(status=200),
            Answer(status=429, headers={"Retry-After": "1"}),
            Answer(status=307, headers={"Location": "/elsewhere"}),
            Answer(status=503),
        )
        http.script.extend(answers)
        [session] = await harness.sign_in()
        await harness.sign_out([session])
        await harness.until(lambda: len(http.asked) > len(answers), "an answer was taken for 202")
        await harness.until_nothing_waits()
        assert len(http.asked) == len(answers) + 1
        assert {asked.path for asked in http.asked} == {"/v1/events"}, "a redirect was followed"
        assert {asked.event["id"] for asked in http.asked} == {http.asked[0].event["id"]}
        assert {(asked.token, asked.content_type) for asked in http.asked} == {(http.token, "application/json")}
        assert http.asked[2].at - http.asked[1].at >= 1, "Retry-After was not kept"
        assert harness.subject.key_of(http.asked[0].event) == session.key


@pytest.mark.starts
async def test_a_hanging_api_delays_no_sign_out(harness: Harness, tmp_path: Path) -> None:
    """The request is given up, and the event sent again."""
    async with _publishing_to(harness, tmp_path) as http:
        http.script.append(Answer(hangs=True))
        sessions = await harness.sign_in(3)
        await harness.sign_out(sessions)
        await harness.until(lambda: len(http.asked) >= 4, "the event was not sent again")
        await harness.until_nothing_waits()
        keys = list(dict.fromkeys(harness.subject.key_of(asked.event) for asked in http.asked))
        assert keys == [session.key for session in sessions]


@pytest.mark.starts
@pytest.mark.parametrize("status", [400, 413])
async def test_a_refused_event_is_set_aside(harness: Harness, tmp_path: Path, status: int) -> None:
    """It becomes a file `.refused`, logged with the event's id; the next event is published."""
    async with _publishing_to(harness, tmp_path) as http:
        http.script.append(Answer(status=status))
        sessions = await harness.sign_in(2)
        await harness.sign_out(sessions)
        await harness.until(lambda: len(http.asked) >= 2, "a refused event delays the next")
        await harness.until(lambda: harness.files(".refused"), "a refused event was not set aside")
        await harness.until_nothing_waits()
        await harness.until(lambda: str(http.asked[0].event["id"]) in harness.log(), "the log does not name the event")
        assert len({str(asked.event["id"]) for asked in http.asked}) == len(http.asked) == 2
        for refused in harness.files(".refused"):
            refused.unlink()


@pytest.mark.starts
async def test_mass_logouts_ask_for_the_bulk_lane(harness: Harness, tmp_path: Path) -> None:
    """By `?lane=bulk`."""
    async with _publishing_to(harness, tmp_path) as http:
        sessions = await harness.sign_in(2)
        await harness.subject.end_in_bulk(sessions)
        await harness.until(lambda: len(http.asked) >= 2, "events are lost")
        await harness.until_nothing_waits()
        assert {asked.lane for asked in http.asked} == {"bulk"}


@pytest.mark.starts
async def test_a_worker_takes_the_events(harness: Harness, tmp_path: Path) -> None:
    """notifier's own API, with a bearer token."""
    site = Site(tmp_path, f"sqlite:{tmp_path / 'queue.db'}")
    token = tmp_path / "token"
    token.write_text(API_TOKEN)
    if harness.runs_with is None:
        await harness.run()
    sessions = await harness.sign_in(2)
    site.add_key(str(sessions[0].expected["iss"]), "publisher.pem")
    site.write()
    async with worker(site) as running:
        listening = await running.until_logged("listening", lambda line: "api" in line)
        await harness.run(url=str(listening["api"]), secret_file=token)
        await harness.sign_out(sessions)
        await harness.until_nothing_waits()
        await running.until_metric(2, "events_total")
        assert json.dumps(API_TOKEN) not in harness.log()
        assert await running.stop() == 0
