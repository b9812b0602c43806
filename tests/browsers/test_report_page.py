"""The page that `notifier report --html` writes, as a browser shows it."""

import re
import time
from pathlib import Path

from playwright.async_api import expect

from tests.browsers.conftest import NewPage
from tests.features.feed.test_report_command import day, report, write


async def test_a_browser_shows_the_page(new_page: NewPage, tmp_path: Path) -> None:
    """Everything is drawn, nothing is asked for, and a client's name is a name and no markup."""
    write(tmp_path / "outcomes.db", day(time.time()))
    assert "written: r.html" in report(tmp_path, "--html", "r.html").stdout
    file = tmp_path / "r.html"
    assert not re.findall(r"url\(|@import|src=|href=|<link", file.read_text())
    page = await new_page()
    await page.goto(file.as_uri())
    await expect(page).to_have_title(re.compile("Logout propagation, "))
    await expect(page.locator("svg")).to_have_count(4)
    await expect(page.locator("tr")).to_have_count(1 + 1 + 3 + 1)
    for tile in ("failing now", "got nothing"):
        await expect(page.get_by_text(tile, exact=True).locator("+ b")).to_have_text(re.compile("^1 of 3"))
    await expect(page.locator("script")).to_have_count(0)
    await expect(page.locator("table").get_by_text("<script>document.title", exact=False)).to_be_visible()
    assert len(await page.screenshot()) > 10_000  # an empty page of that size has 5,000
