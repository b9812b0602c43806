"""Pictures of pages for the documents. `make pictures` stores them; other runs make and discard them."""

import os
from pathlib import Path

from playwright.async_api import Page

MOST = 90_000  # bytes of a picture in the documents
STYLE = """<style>
body { font: 16px sans-serif; margin: 24px 32px } h1 { font-size: 22px }
iframe { border: 1px solid #aaa; width: 100%; height: 140px }
</style>"""
"""Of an identity server's page, so that one sees where its frame begins."""


async def keep_picture(page: Page, folder: Path, name: str, height: int = 240, width: int = 720) -> None:
    """Take a picture of the page: into the documents if they are made, else into `folder`."""
    docs = os.environ.get("NOTIFIER_TEST_PICTURES")
    picture = Path(docs, name) if docs else folder / name.replace("/", "-")
    await page.set_viewport_size({"width": width, "height": height})
    await page.screenshot(path=picture)
    assert 2000 < picture.stat().st_size < MOST
