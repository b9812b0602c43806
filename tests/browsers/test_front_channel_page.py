"""The front-channel page in a real Chromium, framed by an identity server's page behind a real nginx.

`test_front_channel_whole.py` has the longer half of the facts.
"""

import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet, MultiFernet
from playwright.async_api import Page

from notifier.features.browsers.front_channel_context import seal_context
from notifier.model.client import FrontChannelClient
from notifier.model.front_channel import FrontChannelContext
from tests.browsers.conftest import NewPage
from tests.browsers.debian_browsers import until
from tests.browsers.front_channel_sites import UPSTREAM, Sites, sites

TEMPLATE = {
    "Content-Security-Policy": "default-src 'self'; script-src 'unsafe-inline'; frame-ancestors 'none';"
    " sandbox allow-forms allow-same-origin allow-scripts; base-uri 'self'"
}
"""Headers of an identity server's page, as in Duende's template."""
SEEN = "width=600 height=200"
EACH = ("ok", "error", "nothing", "elsewhere", "unframed", "own-policy", "download", "confirms", "cached")


def clients(harness: Sites) -> dict[str, Any]:
    """Return one client of each behaviour, each on a separate host."""
    made: dict[str, Any] = {each: harness.url(each, f"/rp/{each}") for each in (*EACH, "to-http", "corp", "reset")}
    made |= {each: harness.url(each, f"/rp/{each}") for each in ("hang", "stall", "slow")}
    made |= {
        "dead": harness.url("dead", "/rp/ok", harness.dead_port),
        "bad": harness.url("bad", "/rp/ok", harness.bad_port),
    }
    made |= {f"many-{nth}": harness.url(f"many-{nth}", "/rp/ok") for nth in range(40)}
    made["named"] = {"frontchannel_logout_uri": harness.url("named", "/rp/hang"), "client_name": "<b>Books & more"}
    made["strict"] = {
        "frontchannel_logout_uri": harness.url("strict", "/rp/ok"), "frontchannel_logout_session_required": True,
    }  # fmt: skip
    return made


def results(message: Any) -> dict[str, str]:
    return {client["id"]: client["result"] for client in message[2]["clients"]}


async def shown(harness: Sites, page: Page, *client_ids: str, **framing: Any) -> Any:
    """Return the result that the embedding page got: [when, origin, message]."""
    await page.goto(harness.framing(harness.page_url(harness.seal(*client_ids, now=time.time())), **framing))
    return await until(page, "message()")


@pytest.mark.parametrize("kind", ["chromium", "firefox"])
async def test_only_the_parent_gets_the_result(new_page: NewPage, tmp_path: Path, pem: Path, kind: str) -> None:
    """What is sent to an origin that is not above the page is an error in every user's console.

    The parent may be of the page's own origin or of another. Where it disables the referrer, and the browser sends
    none, the result is sent to each origin, so that the parent still gets it.
    """
    page = await new_page(kind)
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if "postMessage" in message.text else None)
    async with sites(tmp_path, pem, clients) as harness:
        for framing in ({}, {"host": UPSTREAM}):
            report = await shown(harness, page, "ok", **framing)
            assert (report[1], results(report)) == (harness.iss, {"ok": "answered"})
            assert errors == []
        quiet = {"Referrer-Policy": "no-referrer"}
        report = await shown(harness, page, "ok", host=UPSTREAM, headers=quiet)
        assert results(report) == {"ok": "answered"}
        assert bool(errors) is (kind == "firefox" and not await page.evaluate("!!location.ancestorOrigins"))


async def test_an_unregistered_client_is_called_at_its_supplied_address(
    new_page: NewPage, tmp_path: Path, pem: Path
) -> None:
    """By fetch and by frame, as any other; not on the identity server's own host."""
    page = await new_page()
    key, own = Fernet.generate_key(), tmp_path / "own.keys"
    own.write_bytes(key)
    own.chmod(0o600)
    async with sites(tmp_path, pem, clients, keys_file=str(own)) as harness:
        uris = {"fresh": harness.url("fresh", "/rp/ok?a=1"), "own": f"{harness.iss}/rp/ok"}
        brought = {name: FrontChannelClient(frontchannel_logout_uri=uri) for name, uri in uris.items()}
        named = tuple((name, None) for name in ("ok", *uris))
        context = FrontChannelContext(iss=harness.iss, sid="5F2A", clients=named, supplied=brought)
        sealed = seal_context(context, MultiFernet([Fernet(key)]), time.time())
        await page.goto(harness.framing(harness.page_url(sealed)))
        report = await until(page, "message()")
        assert results(report) == {"ok": "answered", "fresh": "answered"}
        await until(page, "loaded")
        came = harness.asked("fresh")
        assert {request.how for request in came} == {"empty", "iframe"}
        assert all(request.query == {"a": "1", "iss": harness.iss, "sid": "5F2A"} for request in came)


async def test_each_client_is_called_and_reported(new_page: NewPage, tmp_path: Path, pem: Path) -> None:
    """By fetch and by frame, in the identity server's own template; clients with bad answers delay no other.

    Where the operator wants it, a frame that is seen names what gave no answer, as text.
    """
    page = await new_page()
    async with sites(tmp_path, pem, clients, limit="5s", show_names=True) as harness:
        report = await shown(harness, page, *EACH, headers=TEMPLATE)
        assert (report[1], report[2]["how"]) == (harness.iss, "done")  # not `limit`
        assert results(report) == {each: "confirmed" if each == "confirms" else "answered" for each in EACH}
        assert await page.evaluate("got.some((each) => each[2] === 'logout-iframes-complete')")
        await until(page, "loaded")
        for each in EACH:
            came = harness.asked(each)
            assert {request.how for request in came} == {"empty", "iframe"}
            assert all(request.query == {"iss": harness.iss, "sid": "5F2A"} for request in came)
            assert {request.referer for request in came} == {f"{harness.iss}/"}

        report = await shown(harness, page, "ok", "dead", "bad", "to-http", "corp", attributes=SEEN)
        assert report[2]["how"] == "done"
        of = results(report)
        assert (of.pop("ok"), {*of.values()} <= {"unclear", "failed"}) == ("answered", True), of
        assert harness.asked("bad") == []

        report = await shown(harness, page, "ok", "named", "hang", attributes=SEEN)
        assert report[2]["how"] == "limit"
        assert report[0] > 4900
        assert report[2]["clients"][1] == {"id": "named", "name": "<b>Books & more", "result": "silent"}
        assert results(report) == {"ok": "answered", "named": "silent", "hang": "silent"}
        frame = page.frames[1]
        assert await frame.inner_text("#status") == (
            "These applications gave no answer. You may still be signed in there:\n\n<b>Books & more\nhang"
        )
        assert await frame.evaluate("[document.documentElement.lang, document.getElementById('status').role]") == [
            "en", "status",
        ]  # fmt: skip
        await until(page, "loaded")  # the hanging client is released

        await shown(harness, page, "ok", attributes=SEEN)
        assert "were told" in await page.frames[1].inner_text("#status")

        assert harness.worker is not None
        await harness.worker.until_metric(4, "front_channel_pages_total", result="shown")
        await harness.worker.until_metric(3, "front_channel_reports_total", result="done")
        await harness.worker.until_metric(1, "front_channel_reports_total", result="limit")
        await harness.worker.until_metric(4, "front_channel_clients_total", client_id="ok", result="reached")
        await harness.worker.until_metric(1, "front_channel_clients_total", client_id="hang", result="unknown")
