"""A worker hangs, is killed or is unreachable: the console shows it within seconds, and marks old data as old."""

import asyncio
import signal

from playwright.async_api import Route, expect

from tests.features.console.browser.conftest import SRE, NewWindow, Service
from tests.support.rabbitmq_node import RabbitmqNode
from tests.system.worker_process import WorkerProcess

SEEN_WITHIN = 18_000  # milliseconds: thrice of what a quiet machine takes at most


async def test_a_hanging_and_an_unreachable_api_are_shown(
    service: Service, running: WorkerProcess, new_window: NewWindow
) -> None:
    """It is not called live any more, what is shown is of then; and it is live again by itself."""
    window = await new_window(running)
    page = window.page
    await window.sign_in(SRE)
    running.send(signal.SIGSTOP)
    try:
        await expect(page.locator(".pulse.bad")).to_contain_text("no", timeout=SEEN_WITHIN)
        await expect(page.locator(".alarms")).to_contain_text("No update since")
    finally:
        running.send(signal.SIGCONT)
    await expect(page.locator(".pulse.good")).to_contain_text("1 of 1 worker")
    await expect(page.locator(".alarms .band")).to_have_count(0)
    await running.stop(signal.SIGKILL)
    await expect(page.locator(".alarms")).to_contain_text("No update since", timeout=SEEN_WITHIN)
    await expect(page.locator(".pulse")).to_have_text("no response")
    assert "unreachable" in await page.locator(".alarms").inner_text()


async def test_omitted_clients_are_counted(running: WorkerProcess, new_window: NewWindow) -> None:
    """The states of some thousand clients in trouble do not fit into the answer of a worker."""

    async def omit(route: Route) -> None:
        answer = await route.fetch()
        await route.fulfill(response=answer, json=await answer.json() | {"clients_left_out": 2500})

    window = await new_window(running)
    await window.page.route("**/v1/overview*", omit)
    await window.sign_in(SRE)
    await expect(window.page.get_by_text("the workers have omitted 2,500 states")).to_be_visible()


async def test_an_alarm_of_the_broker_comes_first(
    service: Service, new_window: NewWindow, own_node: RabbitmqNode
) -> None:
    """Nobody answers over the side channel then: the worker that is asked shows its own state, and nothing is green."""
    site = service.site
    site.config["queue"] = {"url": own_node.url, "buckets": 2}
    site.write()
    async with service.worker() as first, service.worker() as second:
        await second.until_logged("consuming")
        window = await new_window(first)
        page = window.page
        await window.sign_in(SRE)
        await expect(page.locator(".pulse.good")).to_contain_text("2 of 2 workers")
        await service.sign_out(first, "shop", 10, answered=503)
        await expect(window.row("shop")).to_be_visible()
        await asyncio.to_thread(own_node.ctl, "set_vm_memory_high_watermark", "0.0000001")
        await expect(page.locator(".pulse.bad")).to_contain_text("The broker blocks publishing · 1 of 2 workers")
        await expect(page.locator(".head.bad b")).to_have_text("The broker blocks publishing.")
        await expect(page.locator(".troubles li").first).to_contain_text("The broker blocks publishing")
        assert await page.locator(".pulse.good, .head.good").count() == 0
        assert "without trouble" not in await page.locator("main").inner_text()
        await window.go("live")
        await window.go("clients")
        await expect(window.row("wiki")).to_be_visible()
        await asyncio.to_thread(own_node.ctl, "set_vm_memory_high_watermark", "0.4")
        await expect(page.locator(".pulse.good")).to_contain_text("2 of 2 workers")
        await asyncio.to_thread(own_node.ctl, "stop_app")
        await expect(page.locator(".pulse.bad")).to_have_text("The queue is unavailable · 1 worker, others unknown")
        await window.go("overview")
        await expect(page.locator(".head.bad b")).to_have_text("The queue is unavailable.")


async def test_a_problem_that_delays_nothing_is_in_the_sentence_too(
    service: Service, running: WorkerProcess, new_window: NewWindow
) -> None:
    """The sentence, the list, the badge and the tab's title have one count; the sentence is yellow."""
    service.site.config["shutdown_grace"] = "21s"
    service.site.write()
    await service.reload(running)
    window = await new_window(running)
    page = window.page
    await window.sign_in(SRE)
    await expect(page.locator(".head.warn b")).to_have_text("1 problem.")
    await expect(page.locator(".troubles > li.warn")).to_contain_text("A changed setting needs a restart")
    await expect(page.locator(".troubles > li")).to_have_count(1)
    await expect(page.locator('nav a[href="#/overview"] .badge')).to_have_text("1")
    await expect(page).to_have_title("(1) Overview · notifier")
