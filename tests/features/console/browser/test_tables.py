"""What tables and plots show: one row for each client, its last real answer, and units on the axes."""

from playwright.async_api import expect

from tests.features.console.browser.conftest import SRE, NewWindow, Service
from tests.system.site import ISSUER
from tests.system.waiting import until
from tests.system.worker_process import WorkerProcess

OAUTH_ERROR = (
    '{"timestamp": "2030-01-01T00:00:00Z", "error": "temporarily_unavailable", "status": 503, '
    '"error_description": "the \\"orders\\" database is read-only"}'
)


async def test_pending_has_a_row_for_each_client(
    service: Service, running: WorkerProcess, new_window: NewWindow
) -> None:
    """Opened, it has its reasons and places. The last answer is never the cause of a deferral."""
    await service.sign_out(running, "legacy", 1)
    service.answer("shop", 503, OAUTH_ERROR)
    await service.sign_out(running, "shop", 6)

    async def reasons() -> set[tuple[str, str]]:
        _, page = await running.ask("GET", "/v1/waiting/page?age=0", SRE)
        return {(group["client_id"], group["reason"]) for group in page["groups"]}

    wanted = {("shop", "circuit"), ("shop", "server_error"), ("legacy", "paused")}
    await until(reasons, lambda found: wanted <= found)
    window = await new_window(running)
    page = window.page
    await window.sign_in(SRE)
    row = window.row("shop")
    await expect(row).to_contain_text('503 the "orders" database is read-only (temporarily_unavailable)')
    await expect(row.locator(".quote")).to_have_attribute("title", OAUTH_ERROR)
    await expect(window.row("legacy")).to_contain_text("deferred paused")
    await window.go("waiting")
    clients = page.get_by_role("region", name="Pending deliveries by client").locator("tbody tr")
    await expect(clients).to_have_count(2)
    shop = clients.filter(has_text="shop")
    await shop.locator("summary").click()
    await expect(shop.locator("li", has_text="circuit")).to_contain_text("parked until it recovers")
    await expect(shop.locator("li", has_text="server_error")).to_contain_text("delayed")
    deliveries = page.get_by_role("region", name="Pending deliveries", exact=True).locator("tbody tr", has_text="shop")
    await expect(deliveries).to_have_count(6)
    for answer in await deliveries.locator("td[data-head='Last answer']").all():
        await expect(answer).to_contain_text("server_error 503 the")


async def test_client_page_counts_its_dead_letters(
    service: Service, running: WorkerProcess, new_window: NewWindow
) -> None:
    """Those in the queue now, also after they were replayed. Its plot has units."""
    await service.sign_out(running, "payroll", 3, answered=404)
    await running.until_metric(3.0, "dead_letters_total")
    window = await new_window(running)
    page = window.page
    await window.sign_in(SRE)
    await window.go(f"client?client_id=payroll&iss={ISSUER}")
    link = page.locator("a.button", has_text="Dead letters")
    await expect(link).to_have_text("Dead letters 3")
    await expect(page.locator(".axis-unit")).to_have_text("results a minute")
    await expect(page.locator(".axis-x span")).to_have_count(3)
    await expect(page.locator(".axis-y")).to_have_text("30")  # the most, and zero
    service.answer("payroll", 200)
    await page.get_by_role("button", name="Resolved …").click()
    await window.dialog.get_by_role("button", name="Replay 3 dead letters").click()
    await expect(link).to_have_text("Dead letters 0")
