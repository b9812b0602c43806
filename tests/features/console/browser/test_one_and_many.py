"""Numbers are told in words that fit them."""

from playwright.async_api import expect

from tests.features.console.browser.conftest import SRE, NewWindow, Service
from tests.system.site import ISSUER
from tests.system.worker_process import WorkerProcess


async def test_one_is_told_as_one(service: Service, running: WorkerProcess, new_window: NewWindow) -> None:
    """One waits and one was given up; of two, both."""
    service.answer("shop", 404)
    service.answer("payroll", 503)
    window = await new_window(running)
    await window.sign_in(SRE)
    head = window.page.locator(".band.head")
    for words in (
        "1 waits and is retried automatically; 1 was given up",
        "2 wait and are retried automatically; 2 were given up",
    ):
        await service.sign_out(running, "shop")
        await service.sign_out(running, "payroll")
        await expect(head).to_contain_text(words)


async def test_a_plot_tells_what_it_counts(service: Service, running: WorkerProcess, new_window: NewWindow) -> None:
    """Of one client only attempts are counted by the minute: nothing says that none was given up."""
    service.answer("shop", 404)
    window = await new_window(running)
    await window.sign_in(SRE)
    await service.sign_out(running, "shop")
    plot = window.page.locator("figure.plot")
    await expect(plot).to_contain_text("1 given up")
    await window.go(f"client?client_id=shop&iss={ISSUER}")
    await expect(plot).to_contain_text("1 failed")
    await expect(plot).not_to_contain_text("given up")
