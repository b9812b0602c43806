"""The check-session page in Chromium, behind nginx on the identity server's own origin.

No client gets `changed` while the user may still be signed in, and each sees a sign-out within a second.
"""

import asyncio
from pathlib import Path

from playwright.async_api import Page

from notifier.features.browsers.web_settings import SessionFormula
from tests.browsers.check_session_harness import (
    ELSEWHERE,
    SAME_SITE,
    CheckSessionHarness,
    check_session_harness,
    cookie_of,
    session_state,
)
from tests.browsers.conftest import NewPage
from tests.browsers.debian_browsers import PATIENCE, until

FOLLOWED = ["unchanged", "changed", "unchanged", "changed", "changed"]
DUENDE, KEYCLOAK = SessionFormula.DUENDE, SessionFormula.KEYCLOAK


async def ask(page: Page, text: str, client: str = "spa") -> str:
    async with asyncio.timeout(PATIENCE):
        return str(await page.evaluate("ask", f"{client} {text}"))


async def follow(harness: CheckSessionHarness, host: str, formula: SessionFormula) -> list[str]:
    """Return one page's answers: a session lives, another starts, the first returns and ends; and a later page's."""
    await harness.state(formula, "SID1")
    page = await harness.asker(host, formula)
    answers = []
    for state in ("SID1", "SID2", "SID1", None):
        await harness.state(formula, state)
        answers.append(await ask(page, harness.message(formula, host)))
    await page.close()
    late = await harness.asker(host, formula)  # it has never seen the cookie
    answers.append(await ask(late, harness.message(formula, host)))
    await late.close()
    return answers


async def test_a_client_sees_each_change_where_cookies_are_sent(new_page: NewPage, tmp_path: Path, pem: Path) -> None:
    """By each formula, from another site; wrong messages, clients and origins have different answers."""
    async with check_session_harness(tmp_path, pem, await new_page()) as harness:
        for formula in SessionFormula:
            assert await follow(harness, ELSEWHERE, formula) == FOLLOWED, formula
        await misuse(harness)
        await keycloak(harness)
        await watch(harness, ELSEWHERE)


async def misuse(harness: CheckSessionHarness) -> None:
    """No text, no client or no state: `error`. Another's state: `changed`. Too long: nothing."""
    await harness.state(DUENDE, "SID1")
    page = await harness.asker(ELSEWHERE, DUENDE)
    own = harness.message(DUENDE, ELSEWHERE)
    for text in ("spa", "spa ", f" {own}", "", " "):
        assert await page.evaluate("ask", text) == "error", text
    for state in (
        session_state(DUENDE, "spa", "https://evil.test", "SID1"),
        session_state(DUENDE, "other", harness.origin(ELSEWHERE), "SID1"),
        "x.y.z",
        "x",
    ):
        assert await ask(page, state) == "changed", state
    assert await ask(page, own, client="other") == "changed"
    for silent in ("'a ' + 'x'.repeat(4095)", "({a: 1})", "null", "7"):
        assert await page.evaluate(f"silence({silent})") == "silence", silent
    assert await page.evaluate("ask('a ' + 'x'.repeat(4094))") == "changed"
    assert await ask(page, own) == "unchanged"
    await page.close()


async def keycloak(harness: CheckSessionHarness) -> None:
    """Only registered clients, each at its own origins; its cookie as each version makes it; sign-ins are seen."""
    name = "KEYCLOAK_SESSION"
    for value in (cookie_of(KEYCLOAK, "SID1", "sha256"), "realm/user/SID1", f'"{cookie_of(KEYCLOAK, "SID1")}"'):
        await harness.cookie(name, value)
        page = await harness.asker(ELSEWHERE, KEYCLOAK)
        assert [await ask(page, "SID1"), await ask(page, "SID2")] == ["unchanged", "changed"], value
        assert await ask(page, "SID1", client="other") == "error"  # one client for each frame
        await page.close()
    page = await harness.asker(ELSEWHERE, KEYCLOAK)
    assert [await ask(page, "SID1", client="other") for _ in range(2)] == ["error", "error"]
    await page.close()
    page = await harness.asker(SAME_SITE, KEYCLOAK)  # whose answer the browser does not keep yet
    harness.busy.set()
    assert await ask(page, "SID1") == "error"
    harness.busy.clear()
    assert await ask(page, "SID1") == "unchanged"  # the answer of a busy server is not used
    await page.close()
    page = await harness.asker(ELSEWHERE, KEYCLOAK)
    assert await ask(page, "") == "changed"
    await harness.cookie(name, None)
    assert await ask(page, "") == "unchanged"
    await page.close()


async def watch(harness: CheckSessionHarness, host: str) -> None:
    """oidc-client-ts polls each second, and sees the end within one more."""
    await harness.state(DUENDE, "SID1")
    page = await harness.watcher(host, DUENDE)
    await until(page, "states().length >= 2")
    assert set(await page.evaluate("states()")) == {"unchanged"}
    await harness.state(DUENDE, None)
    ended = await page.evaluate("performance.now()")
    await until(page, "states().includes('signed out')")
    late = f"log.filter((each) => each[0] === 'unchanged' && each[1] > {ended}).length"
    assert await page.evaluate(late) <= 1, "at most the answer in flight; the next is changed"
    await page.close()


async def test_a_blocked_cookie_is_not_a_sign_out(new_page: NewPage, tmp_path: Path, pem: Path) -> None:
    """Where third-party cookies are blocked: `error` elsewhere, and all as ever on the identity server's own site."""
    own = await new_page(third_party_cookies=False)
    async with check_session_harness(tmp_path, pem, own) as harness:
        for formula in (DUENDE, KEYCLOAK):
            assert await follow(harness, ELSEWHERE, formula) == ["error"] * 5, formula
            assert await follow(harness, SAME_SITE, formula) == FOLLOWED, formula
        await harness.state(DUENDE, "SID1")
        page = await harness.watcher(ELSEWHERE, DUENDE)
        await until(page, "states().length")
        await watch(harness, SAME_SITE)  # seconds in which the user is signed out, too
        assert set(await page.evaluate("states()")) == {"error"}
