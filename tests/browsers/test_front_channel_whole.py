"""The longer half of the facts of the front-channel page, in both browsers."""

import time
from pathlib import Path

import pytest

from tests.browsers.conftest import NewPage
from tests.browsers.debian_browsers import KINDS, text, until
from tests.browsers.front_channel_sites import EVIL, OP, UPSTREAM, Sites, sites
from tests.browsers.test_front_channel_page import clients, results, shown

MANY = [f"many-{nth}" for nth in range(40)]


@pytest.mark.parametrize("kind", KINDS)
async def test_framing_is_restricted_and_calls_continue_without_a_parent(
    new_page: NewPage, tmp_path: Path, pem: Path, kind: str
) -> None:
    """Foreign pages ask nobody. A page that is left at once, framed twice, or without script asks everybody."""
    page = await new_page(kind)
    async with sites(tmp_path, pem, clients, limit="30s") as harness:

        def url(*client_ids: str) -> str:
            return harness.page_url(harness.seal(*client_ids, now=time.time()))

        mark = len(harness.seen)
        await page.goto(harness.framing(url("ok"), host=EVIL))
        await until(page, "loaded")
        assert (harness.asked("ok", mark), await page.evaluate("got")) == ([], [])

        report = await shown(harness, page, *MANY)
        assert (report[2]["how"], {*results(report).values()}) == ("done", {"answered"})
        framed = [each for each in MANY if any(came.how == "iframe" for came in harness.asked(each))]
        assert framed == MANY[:25]

        mark = len(harness.seen)
        await page.goto(harness.framing(url(*MANY), attributes="sandbox"))
        await harness.until_asked(MANY, mark)
        assert {came.how for each in MANY for came in harness.asked(each, mark)} == {"iframe"}

        mark = len(harness.seen)
        ran = "frames[0].location.pathname.includes('/front-channel/') && frames[0].document.readyState != 'loading'"
        leave = f"<script>(look = () => {ran} ? location.replace('/left') : setTimeout(look, 1))()</script>"
        await page.goto(harness.framing(url("ok", "slow", *MANY), after=leave))
        await harness.until_asked(["ok", "slow"], mark)
        await until(page, "location.pathname === '/left'")
        assert harness.worker is not None
        await harness.worker.until_metric(1, "front_channel_reports_total", result="left")

        mark = len(harness.seen)
        inner = harness.framing(url("ok", "confirms", "slow"))
        await page.goto(harness.framing(inner, host=UPSTREAM))
        assert await until(page, "loaded") > 1400
        assert all(harness.asked(each, mark) for each in ("ok", "confirms", "slow"))
        assert await page.evaluate("got") == []


@pytest.mark.parametrize("kind", KINDS)
async def test_back_and_again(new_page: NewPage, tmp_path: Path, pem: Path, kind: str) -> None:
    """Frames add nothing to the history; a page opened twice asks twice, also what the browser has kept."""
    page = await new_page(kind)
    async with sites(tmp_path, pem, clients) as harness:
        await page.goto(harness.url(OP, "/blank", harness.op_port))
        before = await page.evaluate("history.length")
        report = await shown(harness, page, "ok", "nothing", "confirms", "cached", "dead")
        assert report[2]["how"] == "done"
        assert await page.evaluate("history.length") == before + 1
        mark = len(harness.seen)
        again = harness.framing(harness.page_url(harness.seal("cached", now=time.time())))
        for times in (1, 2):
            await page.goto(again)
            await until(page, "message()")
            assert [came.how for came in harness.asked("cached", mark)].count("empty") == times
        assert harness.worker is not None
        await harness.worker.until_metric(1, "front_channel_reports_total", result="repeated")
        mark = len(harness.seen)
        await page.goto(harness.url("other", "/blank"))
        await page.evaluate("void setTimeout(() => history.back())")  # what asks for it must have its answer before
        await until(page, "document.title === 'Signed out'")
        assert [came for came in harness.seen[mark:] if came.path.startswith("/rp/")] == []


@pytest.mark.parametrize("kind", KINDS)
async def test_sign_outs_depend_on_the_browsers_cookie_rules(
    new_page: NewPage, tmp_path: Path, pem: Path, kind: str
) -> None:
    """A client of the identity server's site loses its cookies; one of another site only if such cookies are let."""

    def two(harness: Sites) -> dict[str, str]:
        return {"same-site": harness.url("app.corp.test", "/rp/clear"), "other-site": harness.url("app", "/rp/clear")}

    async with sites(tmp_path, pem, two) as harness:
        for allowed, left in ((True, "s_lax s_strict"), (False, "s_lax s_none s_strict")):
            page, mark = await new_page(kind, third_party_cookies=allowed), len(harness.seen)
            for host in ("app.corp.test", "app"):
                await page.goto(harness.url(host, "/rp/sign-in"))
            report = await shown(harness, page, "same-site", "other-site")
            assert results(report) == {"same-site": "answered", "other-site": "answered"}
            for host, kept in (("app.corp.test", ""), ("app", left)):
                await page.goto(harness.url(host, "/rp/whoami?again"))
                assert await text(page) == kept
            asked = harness.asked("app", mark)
            cookies = [came.cookies for came in asked if came.path == "/rp/clear"]
            assert cookies[0] == (("s_none",) if allowed else ())  # a later result may follow the first answer
