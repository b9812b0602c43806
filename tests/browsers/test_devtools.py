"""The browser that tests drive starts, says what a page has become, and tells a script's failure."""

from pathlib import Path

import pytest

from tests.browsers.devtools import PageError, driven_chromium


async def test_a_page_is_driven(tmp_path: Path) -> None:
    """Opened, asked, seen; a script that fails says so in the test."""
    async with driven_chromium() as browser:
        page = await browser.page()
        await page.goto("data:text/html,<title>one</title><h1>A heading</h1>")
        assert await page.until("document.title") == "one"
        assert await page.text() == "A heading"
        assert await page.eval("new Promise((done) => setTimeout(done, 1, [1, {a: null}]))") == [1, {"a": None}]
        with pytest.raises(PageError, match="not this"):
            await page.eval("(() => { throw new Error('not this') })()")
        await page.screenshot(tmp_path / "page.png")
        assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
