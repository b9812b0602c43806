"""What docs/session-management.md says of cookies, of pages that ask the browser nothing, and of Firefox."""

from pathlib import Path

from notifier.features.browsers.check_session import SessionFormula
from tests.browsers.check_session_world import ELSEWHERE, SAME_SITE, THIRD_PARTY, CheckSessionWorld, check_session_world
from tests.browsers.conftest import NewPage
from tests.browsers.test_check_session import FOLLOWED, ask, follow, watch

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


async def test_firefox_hides_the_cookies_of_other_sites(new_page: NewPage, tmp_path: Path, pem: Path) -> None:
    """By default. So `error` there, and all as in Chromium on the identity server's own site."""
    own = await new_page("firefox", third_party_cookies=False)
    async with check_session_world(tmp_path, pem, own) as world:
        for formula in (DUENDE, SessionFormula.KEYCLOAK):
            assert await follow(world, ELSEWHERE, formula) == ["error"] * 5, formula
            assert await follow(world, SAME_SITE, formula) == FOLLOWED, formula
        await watch(world, SAME_SITE)
