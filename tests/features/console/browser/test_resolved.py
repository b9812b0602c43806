"""A client works again: the effect of "Resolved", the result of a canary, and the audit log."""

from playwright.async_api import expect

from tests.features.console.browser.conftest import BOUND, SRE, NewWindow, Service
from tests.features.console.browser.window import Window
from tests.system.command import notifier_at
from tests.system.site import ISSUER
from tests.system.worker_process import WorkerProcess

PAYROLL = f"client?client_id=payroll&iss={ISSUER}"


async def given_up(service: Service, running: WorkerProcess, count: int) -> None:
    """Have the client refuse so many logouts."""
    await service.sign_out(running, "payroll", count, answered=404)
    await running.until_metric(float(count), "dead_letters_total")


async def replay(window: Window, count: int) -> None:
    """Sign in, and replay so many dead letters of the client."""
    await window.sign_in(SRE)
    await window.go(PAYROLL)
    await window.page.get_by_role("button", name="Resolved …").click()
    await window.dialog.get_by_role("button", name=f"Replay {count} dead letters").click()


async def test_dead_letters_without_a_session_are_kept_by_default(service: Service, new_window: NewWindow) -> None:
    """It would end newer sessions: the dialog warns, and the number on the button follows the tick."""
    service.site.config["registry"]["defaults"] = {ISSUER: {"sub_only_max_age": "1ms"}}
    service.site.write()
    async with service.worker() as running:
        await service.sign_out(running, "payroll", 2, answered=404)
        for user in ("ann", "ben", "cid"):
            status, _ = await running.post({"iss": ISSUER, "sub": user, "clients": ["payroll"]})
            assert status == 202
        await running.until_metric(5.0, "dead_letters_total")
        service.answer("payroll", 200)
        window = await new_window(running)
        page, dialog = window.page, window.dialog
        await window.sign_in(SRE)
        await window.go(PAYROLL)
        await page.get_by_role("button", name="Resolved …").click()
        await expect(dialog.get_by_role("button", name="Replay 2 dead letters")).to_be_enabled()
        await expect(dialog).to_contain_text("Include 3 dead letters without a session.")
        await dialog.get_by_role("checkbox").check()
        await expect(dialog.get_by_role("button", name="Replay 5 dead letters")).to_be_enabled()
        await dialog.get_by_role("checkbox").uncheck()
        await dialog.get_by_role("button", name="Replay 2 dead letters").click()
        await expect(dialog.locator(".account")).to_contain_text("3 kept: would_end_newer_sessions")
        await expect(dialog.get_by_text("It has ended.")).to_be_visible()
        await page.keyboard.press("Escape")
        assert {hit.claims.get("sid") for hit in service.clients.at("payroll")[5:]} == {"s1", "s2"}

        await page.get_by_role("button", name="Resolved …").click()
        await dialog.get_by_role("checkbox").check()
        await dialog.get_by_role("button", name="Replay 3 dead letters").click()
        await expect(dialog.locator(".account")).to_contain_text("3 dead letters replayed.")


async def test_replay_has_an_end_and_a_rate(service: Service, running: WorkerProcess, new_window: NewWindow) -> None:
    """A new end is counted again. With a rate, the rest of the dead letters remains meanwhile."""
    await given_up(service, running, 3)
    service.answer("payroll", 200)
    window = await new_window(running)
    page, dialog = window.page, window.dialog
    await window.sign_in(SRE)
    await window.go("dead")
    await page.get_by_role("button", name="Replay these 3 …").click()
    await expect(dialog.get_by_role("button", name="Replay 3 dead letters")).to_be_enabled()
    await dialog.get_by_label("Sessions until").fill("2020-01-02T03:04:05")
    await dialog.get_by_label("Sessions until").blur()
    await expect(dialog.get_by_role("button", name="Replay 0 dead letters")).to_be_disabled()
    await dialog.get_by_label("Sessions until").fill("")
    await dialog.get_by_label("Sessions until").blur()
    await expect(dialog.get_by_role("button", name="Replay 3 dead letters")).to_be_enabled()
    await dialog.get_by_label("At most a second").fill("0.001")
    await dialog.get_by_role("button", name="Replay 3 dead letters").click()
    await expect(dialog.locator(".account")).to_contain_text("1 dead letter replayed.")
    await expect(dialog.locator(".account")).to_contain_text("running")


async def test_replayed_deliveries_that_fail_again_are_no_success(
    service: Service, running: WorkerProcess, new_window: NewWindow
) -> None:
    """A client still fails: the result is red, with the number of new dead letters."""
    await given_up(service, running, 3)
    window = await new_window(running)
    await replay(window, 3)
    await expect(window.dialog.locator(".account.bad")).to_contain_text("3 given up again: refused 3")
    await expect(window.page.locator(".notices .bad")).to_contain_text("3 given up again")


async def test_a_job_continues_when_the_tab_is_closed(
    service: Service, running: WorkerProcess, new_window: NewWindow
) -> None:
    """The audit log has it for later readers."""
    await given_up(service, running, 3)
    service.answer("payroll", 200)
    window = await new_window(running)
    await replay(window, 3)
    await expect(window.dialog.locator(".account")).to_be_visible()
    await window.open()  # another document: nothing of the first is left
    await running.until_metric(3.0, "deliveries_settled_total", fate="delivered")
    await window.go("acts")
    job = window.row("replay").first
    await expect(job).to_contain_text("alice")
    await expect(job).to_contain_text("3 dead letters replayed.")
    act = window.row("jq -c")
    [repair_id] = {line["repair_id"] for line in running.logged("dead_letters_replayed")}
    await expect(act).to_contain_text(f"""jq -c 'select(.audit and .repair_id == "{repair_id}")' notifier.log""")
    await expect(act).to_contain_text("filter: client_id payroll")  # words, and no JSON


async def test_a_long_claimed_name_is_shown_as_claimed(
    service: Service, running: WorkerProcess, new_window: NewWindow
) -> None:
    """A command may claim the name of a token, and anything after it."""
    search = ("dead-letters", "list", "--event-id", "e-1")
    await notifier_at(service.site, *search, settings={"LOGNAME": f"alice{150 * ' '}x"})
    await running.until_logged("dead_letters_looked_for")
    window = await new_window(running)
    await window.sign_in(SRE)
    await window.go("acts")
    await expect(window.row("dead letters looked for").locator("td", has_text="alice")).to_contain_text("(claimed)")


async def test_a_job_whose_worker_has_ended_is_over(
    service: Service, running: WorkerProcess, new_window: NewWindow
) -> None:
    """The job is unknown: the page shows that, and stops polling."""
    await given_up(service, running, 2)
    window = await new_window(running)
    await window.page.route("**/v1/jobs/*", lambda route: route.fulfill(status=404, json={"title": "Nobody knows it"}))
    await replay(window, 2)
    await expect(window.dialog.locator(".account.warn")).to_contain_text("its worker has stopped")
    await expect(window.page.locator(".notices")).to_contain_text("its worker has stopped")
    await expect(window.dialog.get_by_text("It has ended.")).to_be_visible()


async def test_a_canary_shows_whether_the_client_accepts_tokens(
    service: Service, running: WorkerProcess, new_window: NewWindow
) -> None:
    """Its answer is on the screen; it makes no pending delivery or dead letter."""
    window = await new_window(running)
    await window.sign_in(BOUND)
    await window.go(PAYROLL)
    await window.page.get_by_role("button", name="Canary …").click()
    await window.dialog.get_by_role("button", name="Send one canary").click()
    await expect(window.dialog.locator(".findings")).to_contain_text("it accepts our tokens")
    service.answer("payroll", 404, "no such page")
    await window.dialog.get_by_role("button", name="Send another").click()
    await expect(window.dialog.locator(".findings .chip.bad")).to_be_visible()
    await expect(window.dialog.locator(".findings")).to_contain_text("no such page")
    assert all(hit.claims["sub"].startswith("notifier-canary-") for hit in service.clients.hits)
    assert await running.metric("dead_letters_total") == 0
