"""One browser of each kind for the whole run, the key that it trusts, and a private window for each page of a test."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Page, async_playwright, expect

from tests.browsers.debian_browsers import PATIENCE, Browsers, share_one_loop
from tests.browsers.front_channel_sites import OP, key_of
from tests.support.certificates import authority

HERE = Path(__file__).parent
NewPage = Callable[..., Awaitable[Page]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    share_one_loop(items, HERE)


@pytest.fixture(scope="session")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate of all sites, of an authority whose own is beside it in `ca.pem`."""
    return authority(tmp_path_factory.mktemp("ca")).issue(OP, "*.test", "*.corp.test")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browsers(pem: Path) -> AsyncIterator[Browsers]:
    """None of them has started yet."""
    expect.set_options(timeout=PATIENCE * 1000)
    async with async_playwright() as playwright, AsyncExitStack() as stack:
        yield Browsers(playwright, stack, key_of(pem))


@pytest_asyncio.fixture(loop_scope="session")
async def new_page(browsers: Browsers) -> AsyncIterator[NewPage]:
    """Open a page in a separate window: `await new_page("firefox", third_party_cookies=False)`."""
    async with AsyncExitStack() as stack:

        async def opened(kind: str = "chromium", *, third_party_cookies: bool = True) -> Page:
            context = await browsers.context(kind, third_party_cookies=third_party_cookies)
            stack.push_async_callback(context.close)
            return await context.new_page()

        yield opened
