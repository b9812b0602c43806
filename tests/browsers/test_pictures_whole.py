"""What a user sees of the front-channel page in a frame that can be seen, from its first moment to its end."""

import time
from pathlib import Path
from typing import Any

from tests.browsers.conftest import NewPage
from tests.browsers.debian_browsers import until
from tests.browsers.front_channel_sites import Sites, sites
from tests.browsers.pictures import STYLE, keep_picture

NAMES = {"shop": "Shop", "mail": "Mail", "books": "Books & more", "travel": "Travel"}
STATUS = "frames[0].document.getElementById('status').innerText"


def named_clients(harness: Sites) -> dict[str, Any]:
    """Two that answer, and two that never do."""
    return {
        each: {"frontchannel_logout_uri": harness.url(each, f"/rp/{'ok' if nth < 2 else 'hang'}"), "client_name": name}
        for nth, (each, name) in enumerate(NAMES.items())
    }


async def test_pictures_of_the_page(new_page: NewPage, tmp_path: Path, pem: Path) -> None:
    """While it asks, when all have answered, and when two have not."""
    page = await new_page()
    async with sites(tmp_path, pem, named_clients, limit="3s", show_names=True) as harness:

        def address(*clients: str) -> str:
            url = harness.page_url(harness.seal(*clients, now=time.time()))
            return harness.framing(url, attributes="title='Your applications'", after=STYLE)

        await page.evaluate(f"void (location.href = {address(*NAMES)!r})")  # its `load` comes at the page's end
        await until(page, "location.href != 'about:blank' && !!frames[0]?.document.getElementById('status')")
        assert "Signing you out" in await page.evaluate(STATUS)
        await keep_picture(page, tmp_path, "front-channel/running.png")
        await until(page, "message()")
        assert await page.evaluate(f"{STATUS}.split('\\n').slice(-2)") == ["Books & more", "Travel"]
        await keep_picture(page, tmp_path, "front-channel/names.png")
        await page.goto(address("shop", "mail"))
        await until(page, "message()")
        assert "were told" in await page.evaluate(STATUS)
        await keep_picture(page, tmp_path, "front-channel/done.png")
