"""`notifier demo --console`, opened as somebody does who tries it: signed in, though no address has a token."""

import asyncio
import re

from playwright.async_api import expect

from notifier.demo.console_demo import PATIENT, Incident, console_demo, play_incidents, sign_outs
from notifier.demo.story import ISS
from tests.browsers.conftest import NewPage


async def test_the_address_opens_the_console_signed_in_once(new_page: NewPage) -> None:
    """A reload stays signed in, and the way back does not lead to the address. Another window is asked for a token."""
    page, other = await new_page(), await new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    async with console_demo(Incident()) as ward:
        await page.goto(ward.address)
        heading = page.get_by_role("heading", name="Clients that do not get their logouts")
        await expect(heading).to_be_visible()
        await page.reload()
        await expect(heading).to_be_visible()
        token = await page.evaluate("sessionStorage.getItem('notifier.token')")
        assert "/console/" in page.url
        assert not any(token in url for url in asked)
        await page.go_back()
        assert "/demo/" not in page.url
        answer = await other.goto(ward.address)
        assert answer is not None
        assert answer.status == 404
        await other.goto(ward.address.partition("/demo/")[0] + "/console/")
        await expect(other.get_by_label("Token of the API")).to_be_visible()


async def test_a_newcomer_mends_the_incident(new_page: NewPage) -> None:
    """By one button on the client's page, and one that names the numbers."""
    page, told = await new_page(), asyncio.Queue[str]()
    incident = Incident(every=0.2, well=0.5, max_age=3, given_up=15)
    async with console_demo(incident) as ward, asyncio.TaskGroup() as group:
        await page.goto(f"{ward.address}#/client?iss={ISS}&client_id={PATIENT}")
        main = page.get_by_role("main")
        await expect(main).to_contain_text("Not tried")
        playing = [
            group.create_task(sign_outs(ward, incident)),
            group.create_task(play_incidents(ward, incident, told.put_nowait)),
        ]
        await expect(main).to_contain_text("Down since")
        while "well again" not in await told.get():
            pass
        await expect(main).to_contain_text("No trouble. Nothing waits for it.")
        await page.get_by_role("button", name="Mended …").click()
        await page.get_by_role("button", name=re.compile(r"^Replay \d+ letters$")).click()
        await expect(page.get_by_role("dialog")).to_contain_text("delivered")
        assert "every logout" in await told.get()
        for task in playing:
            task.cancel()
