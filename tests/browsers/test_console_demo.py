"""`notifier demo --console`, opened as somebody does who tries it: signed in, though no address has a token."""

from playwright.async_api import expect

from notifier.demo.console_demo import Incident, console_demo
from tests.browsers.conftest import NewPage


async def test_the_address_opens_the_console_signed_in_once(new_page: NewPage) -> None:
    """A reload stays signed in, and the way back does not lead to the address. Another window is asked for a token."""
    page, other = await new_page(), await new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    async with console_demo(Incident()) as scenario:
        await page.goto(scenario.address)
        heading = page.get_by_role("heading", name="Clients that do not receive logouts")
        await expect(heading).to_be_visible()
        await page.reload()
        await expect(heading).to_be_visible()
        token = await page.evaluate("sessionStorage.getItem('notifier.token')")
        assert "/console/" in page.url
        assert not any(token in url for url in asked)
        await page.go_back()
        assert "/demo/" not in page.url
        answer = await other.goto(scenario.address)
        assert answer is not None
        assert answer.status == 404
        await other.goto(scenario.address.partition("/demo/")[0] + "/console/")
        await expect(other.get_by_label("API token")).to_be_visible()
