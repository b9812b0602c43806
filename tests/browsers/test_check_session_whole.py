"""What docs/session-management.md says of cookies, of pages that ask the browser nothing, and of Firefox."""

from pathlib import Path

from notifier.domain.check_session import SessionFormula
from tests.browsers.check_session_world import (
    ELSEWHERE,
    SAME_SITE,
    THIRD_PARTY,
    CheckSessionWorld,
    check_session_world,
)
from tests.browsers.conftest import NewPage
from tests.browsers.debian_browsers import until
from tests.browsers.test_check_session import FOLLOWED, ask, follow, keycloak, misuse, watch

DUENDE = SessionFormula.DUENDE


async def heard(world: CheckSessionWorld, host: str) -> str:
    page = await world.asker(host, DUENDE)
    said = await ask(page, world.told(DUENDE, host))
    await page.close()
    return said


async def test_the_cookie_must_have_the_attributes_that_the_document_names(
    new_page: NewPage, tmp_path: Path, pem: Path
) -> None:
    """Else a client is told `changed` though the user is signed in, by any page."""
    async with check_session_world(tmp_path, pem, await new_page()) as world:
        for attributes, elsewhere, same_site in (
            (THIRD_PARTY, "unchanged", "unchanged"),
            ("SameSite=Lax; Secure", "changed", "unchanged"),
            (f"{THIRD_PARTY}; HttpOnly", "changed", "changed"),
            (f"{THIRD_PARTY}; Partitioned", "changed", "unchanged"),
        ):
            await world.state(DUENDE, "SID1", attributes)
            assert [await heard(world, ELSEWHERE), await heard(world, SAME_SITE)] == [elsewhere, same_site], attributes
            await world.state(DUENDE, None, attributes)


async def test_a_page_that_does_not_ask_the_browser_signs_users_out(
    new_page: NewPage, tmp_path: Path, pem: Path
) -> None:
    """The control: so ours must ask."""

    def careless(script: str) -> str:
        question = 'if (!(await seesCookies())) return "error";'
        assert question in script
        return script.replace(question, "")

    own = await new_page(third_party_cookies=False)
    async with check_session_world(tmp_path, pem, own, changed=careless) as world:
        await world.state(DUENDE, "SID1")
        page = await world.watcher(ELSEWHERE, DUENDE)
        await until(page, "said().includes('signed out')")
        assert (await page.evaluate("said()"))[0] == "changed"


async def test_a_client_on_plain_http_hears_error(new_page: NewPage, tmp_path: Path, pem: Path) -> None:
    """The frame is no secure context there: the browser has no `crypto.subtle`."""
    async with check_session_world(tmp_path, pem, await new_page()) as world:
        await world.state(DUENDE, "SID1")
        page = await world.asker(ELSEWHERE, DUENDE, plain=True)
        assert await page.evaluate("isSecureContext") is False
        assert await ask(page, world.told(DUENDE, ELSEWHERE)) == "error"


async def test_firefox_hides_the_cookies_of_other_sites(new_page: NewPage, tmp_path: Path, pem: Path) -> None:
    """By default. So `error` there, and all as in Chromium on the identity server's own site."""
    own = await new_page("firefox", third_party_cookies=False)
    async with check_session_world(tmp_path, pem, own) as world:
        for formula in (DUENDE, SessionFormula.KEYCLOAK):
            assert await follow(world, ELSEWHERE, formula) == ["error"] * 5, formula
            assert await follow(world, SAME_SITE, formula) == FOLLOWED, formula
        await watch(world, SAME_SITE)


async def test_firefox_agrees_with_chromium_where_cookies_flow(new_page: NewPage, tmp_path: Path, pem: Path) -> None:
    """In all that is asked of Chromium."""
    own = await new_page("firefox")
    async with check_session_world(tmp_path, pem, own) as world:
        for formula in SessionFormula:
            assert await follow(world, ELSEWHERE, formula) == FOLLOWED, formula
        await misuse(world)
        await keycloak(world)
        await watch(world, ELSEWHERE)
