"""The overview's sentence counts in English."""

from playwright.async_api import expect

from tests.features.console.browser.conftest import SRE, NewWindow, Service
from tests.system.worker_process import WorkerProcess


async def test_one_is_told_as_one(service: Service, running: WorkerProcess, new_window: NewWindow) -> None:
    """One waits and one was given up; of two, both."""
    service.answer("shop", 404)
    service.answer("payroll", 503)
    window = await new_window(running)
    await window.sign_in(SRE)
    head = window.page.locator(".band.head")
    for words in (
        "1 waits and is tried by itself; 1 was given up",
        "2 wait and are tried by themselves; 2 were given up",
    ):
        await service.sign_out(running, "shop")
        await service.sign_out(running, "payroll")
        await expect(head).to_contain_text(words)
