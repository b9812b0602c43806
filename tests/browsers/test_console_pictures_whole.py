"""The documents' pictures of the console, on the incident of its demo."""

import asyncio
import re
from pathlib import Path

from playwright.async_api import expect

from notifier.demo.console_demo import FAILING_CLIENT, Incident, console_demo, play_incidents, sign_users_out
from notifier.demo.story import ISS
from tests.browsers.conftest import NewPage
from tests.browsers.pictures import keep_picture

INCIDENT = Incident(sign_out_interval_seconds=0.3, healthy_seconds=30.0, max_age_seconds=20, dead_letter_count=24)
CLIENT = f"#/client?iss={ISS}&client_id={FAILING_CLIENT}"
WIDTH = 1260


async def test_pictures_of_the_console(new_page: NewPage, tmp_path: Path) -> None:
    """A client is down, in light and dark; its page; a pause and the list of pauses; and the preview of its repair."""
    page, messages = await new_page(), asyncio.Queue[str]()

    async def until_reported(words: str) -> None:
        while words not in await messages.get():
            pass

    async def picture(name: str, height: int) -> None:
        await keep_picture(page, tmp_path, f"console/{name}.png", height, width=WIDTH)

    await page.set_viewport_size({"width": WIDTH, "height": 640})
    async with console_demo(INCIDENT) as scenario, asyncio.TaskGroup() as group:
        playing = [
            group.create_task(sign_users_out(scenario, INCIDENT)),
            group.create_task(play_incidents(scenario, INCIDENT, messages.put_nowait)),
        ]
        await page.goto(scenario.address)
        await until_reported("goes down")
        await expect(page.get_by_role("main")).to_contain_text(re.compile(r"\d\d were given up"))
        await picture("overview", 620)
        await page.emulate_media(color_scheme="dark")
        await picture("overview-dark", 620)
        await page.emulate_media(color_scheme="light")
        await page.evaluate(f"location.hash = {CLIENT!r}")
        await expect(page.get_by_role("main")).to_contain_text("Unreachable since")
        await picture("client", 560)
        await page.get_by_role("button", name="Pause …").click()
        await page.get_by_role("dialog").get_by_label("Reason").fill("database upgrade, see OPS-17")
        await picture("pause", 440)
        await page.get_by_role("button", name="Pause it").click()
        await page.keyboard.press("Escape")
        await page.evaluate("location.hash = '#/pauses'")
        await expect(page.get_by_role("main")).to_contain_text("database upgrade")
        await picture("pauses", 440)
        await page.get_by_role("button", name=f"Resume {FAILING_CLIENT} …").click()
        await page.get_by_role("button", name="Resume it").click()
        await expect(page.get_by_role("dialog")).to_contain_text("It is resumed.")
        await page.keyboard.press("Escape")
        await page.evaluate(f"location.hash = {CLIENT!r}")
        await until_reported("works again")
        await page.get_by_role("button", name="Resolved …").click()
        await expect(page.get_by_role("dialog")).to_contain_text("replayed")
        await picture("mended", 440)
        for task in playing:
            task.cancel()
