"""Over HTTP a 202 with the event's id confirms, and a problem of notifier refuses. Other servers do neither.

A proxy, a firewall or a captive portal may answer in place of notifier, with any status.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import MappingProxyType

import pytest

from publishers.conformance.api import Answer, Api, api, page, problem
from publishers.conformance.harness import Harness
from tests.system.site import API_TOKEN, Site
from tests.system.worker_process import worker

OTHER_PROBLEM = "https://gateway.example.com/errors/blocked"
INTERCEPTED: Mapping[str, Sequence[Answer]] = MappingProxyType(
    {
        "a 202 without the id": (
            Answer(text=""),
            Answer(text="{}"),
            Answer(text="[]"),
            Answer(text='{"id": "another"}'),
            Answer(text='{"id": "cut'),
            page(202),
            page(202, **{"x-amzn-waf-action": "challenge"}),
        ),
        "another success": (page(200), Answer(status=200), Answer(status=201), Answer(status=204, text="")),
        "a redirect": (page(302, Location="/elsewhere"), page(307, Location="/elsewhere")),
        "a page with an error": tuple(page(status) for status in (400, 401, 403, 404, 407, 413, 422)),
        "another server's problem": (
            *(problem(status, "about:blank") for status in (400, 401, 403, 413, 422)),
            *(problem(status, OTHER_PROBLEM) for status in (400, 413, 422)),
            Answer(status=400, text=problem(400).text),  # not application/problem+json
        ),
    }
)
WITHIN_SECONDS = 10.0
HOLDING: Mapping[str, Sequence[Answer]] = MappingProxyType(
    {
        "an outage, whoever reports it": (page(408), page(500), page(502), page(503)),
        "a problem of notifier": (problem(401), problem(404), problem(409)),
    }
)


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
@pytest.mark.parametrize("kind", [*INTERCEPTED])
async def test_an_intercepted_event_is_sent_again(harness: Harness, tmp_path: Path, kind: str) -> None:
    """It is neither confirmed nor set aside, whatever the status of the foreign answer."""
    async with _publishing_to(harness, tmp_path) as http:
        for answer in INTERCEPTED[kind]:
            http.asked.clear()
            http.script.append(answer)
            [session] = await harness.sign_in()
            await harness.sign_out([session])
            await harness.until(lambda: len(http.asked) >= 2, f"{answer} was taken for an answer of notifier")
            await harness.until_nothing_waits()
            assert [harness.subject.key_of(asked.event) for asked in http.asked] == [session.key] * 2
            assert len({asked.event["id"] for asked in http.asked}) == 1
            assert {asked.path for asked in http.asked} == {"/v1/events"}, "a redirect was followed"
            assert not harness.files(".refused"), answer


@pytest.mark.starts
@pytest.mark.parametrize("kind", [*HOLDING])
async def test_an_outage_holds_the_lane(harness: Harness, tmp_path: Path, kind: str) -> None:
    """The next event is sent once the first is confirmed."""
    async with _publishing_to(harness, tmp_path) as http:
        answers = HOLDING[kind]
        http.script.extend(answers)
        sessions = await harness.sign_in(2)
        await harness.sign_out(sessions)
        await harness.until(lambda: len(http.accepted) == 2, "events are lost")
        await harness.until_nothing_waits()
        keys = [harness.subject.key_of(asked.event) for asked in http.asked]
        assert keys == [sessions[0].key] * (len(answers) + 1) + [sessions[1].key]
        assert not harness.files(".refused")


@pytest.mark.starts
async def test_an_intercepted_event_delays_no_other(harness: Harness, tmp_path: Path) -> None:
    """A firewall blocks one of many events: the others are published, and this one when it is permitted."""
    async with _publishing_to(harness, tmp_path) as http:
        blocked, *sessions = await harness.sign_in(harness.many(101, 101))
        http.by_event = lambda event: page(403) if harness.subject.key_of(event) == blocked.key else None
        await harness.sign_out([blocked])
        await harness.sign_out(sessions, together=10)
        signed_out_at = asyncio.get_running_loop().time()
        wanted = {session.key for session in sessions}
        await harness.until(
            lambda: wanted <= {harness.subject.key_of(event) for event in http.accepted}, "an event blocks the others"
        )
        assert asyncio.get_running_loop().time() - signed_out_at <= WITHIN_SECONDS
        await harness.stays_waiting()
        assert not harness.files(".refused", ".expired")
        event_id = next(asked.event["id"] for asked in http.asked if harness.subject.key_of(asked.event) == blocked.key)
        await harness.until(lambda: str(event_id) in harness.log(), "the log does not name the event")
        http.by_event = lambda _: None
        await harness.until_nothing_waits()
        assert harness.subject.key_of(http.accepted[-1]) == blocked.key


@pytest.mark.starts
async def test_an_event_that_is_not_permitted_delays_no_other(harness: Harness, tmp_path: Path) -> None:
    """notifier answers 403: the token may not speak for the issuer of one event, which its sender may have chosen."""
    async with _publishing_to(harness, tmp_path) as http:
        foreign, *sessions = await harness.sign_in(3)
        http.by_event = lambda event: problem(403) if harness.subject.key_of(event) == foreign.key else None
        await harness.sign_out([foreign])
        await harness.sign_out(sessions)
        wanted = {session.key for session in sessions}
        await harness.until(
            lambda: wanted <= {harness.subject.key_of(event) for event in http.accepted}, "an event blocks the others"
        )
        await harness.stays_waiting()
        assert not harness.files(".refused", ".expired")
        await harness.until(lambda: "denied" in harness.log(), "the log does not have the reason")
        http.by_event = lambda _: None
        await harness.until_nothing_waits()


@pytest.mark.starts
async def test_no_event_is_lost_while_all_are_intercepted(harness: Harness, tmp_path: Path) -> None:
    """Nor by a restart in between."""
    async with _publishing_to(harness, tmp_path) as http:
        http.by_event = lambda _: page(200)
        sessions = await harness.sign_in(5)
        await harness.sign_out(sessions)
        await harness.until(lambda: len({asked.event["id"] for asked in http.asked}) > 1, "an event blocks the others")
        settings = harness.runs_with
        assert settings is not None
        await harness.kill()
        await harness.run(url=settings.url, secret_file=settings.secret_file)
        await harness.stays_waiting(len(sessions))
        http.by_event = lambda _: None
        await harness.until_nothing_waits()
        assert {harness.subject.key_of(event) for event in http.accepted} == {session.key for session in sessions}
        assert not harness.files(".refused", ".expired")


@pytest.mark.starts
async def test_an_intercepted_event_expires(harness: Harness, tmp_path: Path) -> None:
    """It becomes a file `.expired` at the end of its age."""
    async with api(tmp_path) as http:
        http.by_event = lambda _: page(403)
        await harness.run(url=http.url, secret_file=http.secret_file, max_age=4.0)
        await harness.sign_out(await harness.sign_in())
        await harness.until(lambda: harness.files(".expired"), "nothing was set aside")
        await harness.until_nothing_waits()
        assert not harness.files(".refused")
        for expired in harness.files(".expired"):
            expired.unlink()


@pytest.mark.starts
async def test_the_path_of_the_api_is_not_a_base_address(harness: Harness) -> None:
    """Neither `/v1/events` nor `/v1`: the start reports what to write."""
    for path in ("/v1/events", "/v1"):
        before = len(harness.log())
        with suppress(Exception):  # each server has its own way to refuse a setting
            await harness.run(url=f"https://notifier.example.com{path}")
        correction = f"write https://notifier.example.com, without {path}"
        await harness.until(lambda: correction in harness.log()[before:], "the log does not name the correction")  # noqa: B023


@pytest.mark.starts
@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_refused_event_is_set_aside(harness: Harness, tmp_path: Path, status: int) -> None:
    """It becomes a file `.refused`, logged with the event's id; the next event is published."""
    async with _publishing_to(harness, tmp_path) as http:
        http.script.append(problem(status))
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
async def test_a_slow_bulk_lane_delays_no_sign_out(harness: Harness, tmp_path: Path) -> None:
    """Each event of a mass logout takes the API a second: a sign-out behind thirty is published within three."""
    async with _publishing_to(harness, tmp_path) as http:
        mass, [user] = await harness.sign_in(30), await harness.sign_in()
        slow = {session.key for session in mass}
        http.by_event = lambda event: Answer(after=1.0) if harness.subject.key_of(event) in slow else None
        await harness.subject.end_in_bulk(mass)
        await harness.until(lambda: len(http.accepted) >= 1, "the mass logout is not published")
        await harness.sign_out([user])
        signed_out_at = asyncio.get_running_loop().time()
        await harness.until(
            lambda: user.key in {harness.subject.key_of(event) for event in http.accepted},
            "a sign-out waits for a mass logout",
        )
        assert asyncio.get_running_loop().time() - signed_out_at <= 3
        http.by_event = lambda _: None
        await harness.until_nothing_waits()


@pytest.mark.starts
async def test_a_refused_mass_logout_leaves_room_for_sign_outs(harness: Harness, tmp_path: Path) -> None:
    """It fills its share of the outbox while the API is down: sign-outs are still on disk, and survive a kill."""
    async with api(tmp_path) as http:
        await harness.run(url=http.url, secret_file=http.secret_file, max_events=100)
        http.by_event = lambda _: page(503)
        mass, users = await harness.sign_in(150), await harness.sign_in(5)
        await harness.subject.end_in_bulk(mass)
        await harness.until(lambda: harness.waiting() >= 80, "the mass logout has not filled its share")
        await harness.sign_out(users)
        settings = harness.runs_with
        assert settings is not None
        await harness.kill()
        http.by_event = lambda _: None
        await harness.run(url=settings.url, secret_file=settings.secret_file)
        wanted = {session.key for session in (users if harness.subject.traits.looks_up else [*users, *mass])}
        await harness.until(lambda: wanted <= set(map(harness.subject.key_of, http.accepted)), "events are lost")
        await harness.until_nothing_waits()


@pytest.mark.starts
async def test_a_worker_takes_the_events(harness: Harness, tmp_path: Path) -> None:
    """notifier's own API, with a bearer token. Its 401 is recognised as notifier's, and the events wait."""
    site = Site(tmp_path, f"sqlite:{tmp_path / 'queue.db'}")
    token, wrong_token = tmp_path / "token", tmp_path / "wrong-token"
    token.write_text(API_TOKEN)
    wrong_token.write_text("wrong")
    if harness.runs_with is None:
        await harness.run()
    sessions = await harness.sign_in(2)
    site.add_key(str(sessions[0].expected["iss"]), "publisher.pem")
    site.write()
    async with worker(site) as running:
        listening = await running.until_logged("listening", lambda line: "api" in line)
        before = len(harness.log())
        await harness.run(url=str(listening["api"]), secret_file=wrong_token)
        await harness.sign_out(sessions)
        await harness.until(lambda: "denied" in harness.log()[before:].lower(), "the log does not have the reason")
        await harness.run(url=str(listening["api"]), secret_file=token)
        await harness.until_nothing_waits()
        await running.until_metric(2, "events_total")
        assert json.dumps(API_TOKEN) not in harness.log()
        assert await running.stop() == 0
