"""A sign-out at a real identity server, by a real browser, at real clients: its page and the ended sessions."""

from pathlib import Path

import pytest

from tests.browsers.conftest import NewPage
from tests.browsers.debian_browsers import text
from tests.browsers.real_sites import real_sites

ANSWERED = ("intranet", "portal", "nothing", "error", "elsewhere", "unframed", "subdomain", "elsewhere-cookie")
RESULTS = {
    "chromium": {"stall": "answered", "hang": "silent", "dead": "unclear", "bad": "unclear"},
    # Its fetch waits for a body. `bad`: our Firefox trusts any certificate.
    "firefox": {"stall": "silent", "hang": "silent", "dead": "failed", "bad": "answered"},
}


@pytest.mark.parametrize("third_party_cookies", [True, False], ids=["allowed", "blocked"])
@pytest.mark.parametrize("kind", RESULTS)
async def test_the_page_ends_the_sessions_at_real_clients(
    new_page: NewPage, tmp_path: Path, pem: Path, kind: str, third_party_cookies: bool
) -> None:
    """mod_auth_openidc's and LemonLDAP::NG's, which `iss` and `sid` name, always. A cookie's, where it may be set.

    With cookies of other sites blocked, the identity server makes the page's address itself; else `POST /v1/sign-outs`
    does.
    """
    page = await new_page(kind, third_party_cookies=third_party_cookies)
    async with real_sites(tmp_path, pem, own_url=not third_party_cookies, limit="10s") as real:
        for host in ("app.corp.test", "app"):
            await page.goto(real.harness.url(host, "/rp/sign-in"))
        await real.sign_in(page)
        assert await real.signed_in(page) == {"intranet": True, "portal": True}
        assert await real.sign_out(page) == RESULTS[kind] | dict.fromkeys(ANSWERED, "answered")
        assert await real.signed_in(page) == {"intranet": False, "portal": False}
        left = "s_lax s_strict" if third_party_cookies else "s_lax s_none s_strict"
        for host, kept in (("app.corp.test", ""), ("app", left)):
            await page.goto(real.harness.url(host, "/rp/whoami?again"))
            assert await text(page) == kept
        ended = [came.how for came in real.harness.asked("bad")]
        assert bool(ended) == (kind == "firefox")
