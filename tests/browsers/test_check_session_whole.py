"""The statements of docs/session-management.md on cookies, on pages without a request, and on Firefox."""

from pathlib import Path

from notifier.features.browsers.web_settings import SessionFormula
from tests.browsers.check_session_harness import (
    ELSEWHERE,
    SAME_SITE,
    THIRD_PARTY,
    CheckSessionHarness,
    check_session_harness,
)
from tests.browsers.conftest import NewPage
from tests.browsers.test_check_session import FOLLOWED, ask, follow, watch

DUENDE = SessionFormula.DUENDE


async def answer_to(harness: CheckSessionHarness, host: str) -> str:
    page = await harness.asker(host, DUENDE)
    answer = await ask(page, harness.message(DUENDE, host))
    await page.close()
    return answer


async def test_the_cookie_must_have_the_attributes_that_the_document_names(
    new_page: NewPage, tmp_path: Path, pem: Path
) -> None:
    """Otherwise any page answers `changed` to a client though the user is signed in."""
    async with check_session_harness(tmp_path, pem, await new_page()) as harness:
        for attributes, elsewhere, same_site in (
            (THIRD_PARTY, "unchanged", "unchanged"),
            ("SameSite=Lax; Secure", "changed", "unchanged"),
            (f"{THIRD_PARTY}; HttpOnly", "changed", "changed"),
            (f"{THIRD_PARTY}; Partitioned", "changed", "unchanged"),
        ):
            await harness.state(DUENDE, "SID1", attributes)
            assert [await answer_to(harness, ELSEWHERE), await answer_to(harness, SAME_SITE)] == [
                elsewhere,
                same_site,
            ], attributes
            await harness.state(DUENDE, None, attributes)


async def test_firefox_hides_the_cookies_of_other_sites(new_page: NewPage, tmp_path: Path, pem: Path) -> None:
    """By default. So `error` there, and all as in Chromium on the identity server's own site."""
    own = await new_page("firefox", third_party_cookies=False)
    async with check_session_harness(tmp_path, pem, own) as harness:
        for formula in (DUENDE, SessionFormula.KEYCLOAK):
            assert await follow(harness, ELSEWHERE, formula) == ["error"] * 5, formula
            assert await follow(harness, SAME_SITE, formula) == FOLLOWED, formula
        await watch(harness, SAME_SITE)
