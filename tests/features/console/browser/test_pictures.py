"""Pictures of each page and dialog at two widths, light and dark: long names, no data, 50 problems, without a broker.

`NOTIFIER_TEST_LOOKS` names a folder for the pictures; else they are in the test's. Every run checks what a reader of
the pictures would: no column leaves the screen, cut text has a title, states have words, and axes have units.
"""

import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

from playwright.async_api import expect

from tests.features.console.browser.conftest import SRE, NewWindow, Service
from tests.features.console.browser.window import PAGES, Window
from tests.support.rabbitmq_node import RabbitmqNode
from tests.system.command import notifier
from tests.system.site import ISSUER, client
from tests.system.worker_process import WorkerProcess

SCHEMES: Sequence[Literal["dark", "light"]] = ("dark", "light")
WIDTHS = {1280: 800, 390: 844}  # and heights
LONG = "https://apps.example.com/tenants/5f1c2d9e/environments/production-eu-central-1/relying-parties/customer-portal"
NAME = f"Customer portal {'of the whole group ' * 5}"
TEXT = json.dumps({"error": "server_error", "error_description": "The connection to the database was refused. " * 20})
FAULTS = (Path(__file__).parent / "faults.js").read_text()


async def look(window: Window, folder: Path, state: str, places: dict[str, str]) -> None:
    """Take a picture of each place at each width in both colours, and check each width."""
    page, faults = window.page, dict[str, Any]()
    folder = Path(os.environ.get("NOTIFIER_TEST_LOOKS", folder))
    for width, height in WIDTHS.items():
        for name, place in places.items():
            await page.set_viewport_size({"width": width, "height": height})
            await window.go(place)
            await page.mouse.move(0, 0)
            whole = await page.evaluate("document.documentElement.scrollHeight")
            await page.set_viewport_size({"width": width, "height": whole})
            for scheme in SCHEMES:
                await page.emulate_media(color_scheme=scheme)
                await page.screenshot(path=folder / f"{state}-{name}-{width}-{scheme}.png")
            if found := await page.evaluate(FAULTS):
                faults[f"{name} at {width}"] = found
    assert faults == {}, json.dumps(faults, indent=1)


async def look_at_dialog(window: Window, folder: Path, name: str) -> None:
    """Take a picture of the open dialog at each width in both colours, and check each width."""
    page, faults = window.page, dict[str, Any]()
    folder = Path(os.environ.get("NOTIFIER_TEST_LOOKS", folder))
    for width, height in WIDTHS.items():
        await page.set_viewport_size({"width": width, "height": height})
        for scheme in SCHEMES:
            await page.emulate_media(color_scheme=scheme)
            await page.screenshot(path=folder / f"dialog-{name}-{width}-{scheme}.png")
        if found := await page.evaluate(FAULTS):
            faults[f"{name} at {width}"] = found
    assert faults == {}, json.dumps(faults, indent=1)


def places(**more: str) -> dict[str, str]:
    """Each page of the side bar, and others."""
    return {name: name for name in PAGES} | more


async def test_long_names(service: Service, new_window: NewWindow, tmp_path: Path) -> None:
    """Names, issuers and answers of the length that real installations have."""
    uri = service.clients.url("long")
    service.site.write_clients(
        [{**client(f"{LONG}-{number}", uri), "client_name": NAME} for number in (1, 2)]
        + [client("payroll", service.clients.url("payroll")), client("paused", uri, paused=True)]
    )
    service.answer("long", 503, TEXT)
    service.answer("payroll", 404, TEXT)
    service.site.serve_web()
    unread = {"jwks_uri": "http://127.0.0.1:9/keys", "allow_http": True}
    service.site.config["relays"] = {"customer-portal-of-the-whole-group": {"issuer": ISSUER, **unread}}
    service.site.write()
    async with service.worker() as running:
        for number in (1, 2):
            await service.sign_out(running, f"{LONG}-{number}", 6)
        await service.sign_out(running, "payroll", 3)
        await service.sign_out(running, "paused", 1)
        await running.until_metric(3.0, "dead_letters_total")
        _, listed = await running.ask("GET", "/v1/dead-letters/page", SRE)
        assert (await running.ask("DELETE", f"/v1/dead-letters/{listed['letters'][0]['id']}", SRE))[0] == 200
        await running.ask("POST", "/v1/retry", SRE, {"client_id": f"{LONG}-1", "iss": ISSUER})
        window = await new_window(running)
        await window.sign_in(SRE)
        await expect(window.row("customer-portal")).to_have_count(2)
        await expect(window.page.get_by_text("keys not served: away")).to_be_visible()
        at = urlencode({"client_id": f"{LONG}-1", "iss": ISSUER})
        await look(window, tmp_path, "long", places(client=f"client?{at}"))


async def test_dialogs(service: Service, new_window: NewWindow, tmp_path: Path) -> None:
    """A replay and a discard before and after their begin, with filled fields; and "Resolved"."""
    service.site.write_clients([{**client(LONG, service.clients.url("long")), "client_name": NAME}])
    service.answer("long", 404, TEXT)
    async with service.worker() as running:
        await service.sign_out(running, LONG, 3)
        await running.until_metric(3.0, "dead_letters_total")
        window = await new_window(running)
        page, dialog = window.page, window.dialog
        await window.sign_in(SRE)
        at = urlencode({"client_id": LONG, "iss": ISSUER})
        await window.go(f"dead?{at}")
        for action, verb in (("Replay", "Replay"), ("Discard", "Delete")):
            await page.get_by_role("button", name=f"{action} these 3 …").click()
            await dialog.get_by_label("Sessions until").fill("2099-12-31T23:59:59")
            await dialog.get_by_label("Sessions until").blur()
            await expect(dialog.get_by_role("button", name=f"{verb} 3 dead letters")).to_be_visible()
            if action == "Replay":
                await dialog.get_by_label("At most a second").fill("99999.001")
            await look_at_dialog(window, tmp_path, action.lower())
            await page.keyboard.press("Escape")
        await window.go(f"client?{at}")
        await page.get_by_role("button", name="Resolved …").click()
        await dialog.get_by_label("At most a second").fill("99999.001")
        await look_at_dialog(window, tmp_path, "resolved")
        await dialog.get_by_role("button", name="Replay 3 dead letters").click()
        await expect(dialog.get_by_text("It has ended.")).to_be_visible()
        await look_at_dialog(window, tmp_path, "ended")
        await page.keyboard.press("Escape")
        await page.get_by_role("button", name="Pause …").click()
        await dialog.get_by_label("Reason").fill(200 * "x")
        await look_at_dialog(window, tmp_path, "pause")
        await dialog.get_by_role("button", name="Pause it").click()
        await expect(dialog).to_contain_text("applied this")
        await look_at_dialog(window, tmp_path, "paused")
        await page.keyboard.press("Escape")
        await look(window, tmp_path, "paused", {"pauses": "pauses", "client": f"client?{at}", "overview": "overview"})


async def test_no_data(service: Service, new_window: NewWindow, tmp_path: Path) -> None:
    """Before the first client and the first logout."""
    service.site.write_clients([])
    async with service.worker() as running:
        window = await new_window(running)
        await window.sign_in(SRE)
        await look(window, tmp_path, "none", places())


async def test_fifty_problems(service: Service, running: WorkerProcess, new_window: NewWindow, tmp_path: Path) -> None:
    """Events of unknown issuers, and failing clients."""
    events = [{"iss": f"https://id-{number}.example.net", "sub": "ann", "clients": ["x"]} for number in range(50)]
    lines = "\n".join(map(json.dumps, events))  # without a configuration, as by a publisher that has none
    publish = ("publish", "--url", service.site.queue_url)
    done = await asyncio.to_thread(notifier, *publish, cwd=service.site.folder, stdin=lines)
    assert done.returncode == 0, done.stderr
    await service.sign_out(running, "shop", 3, answered=503)
    await running.until_metric(50.0, "dead_letters_total")
    window = await new_window(running)
    await window.sign_in(SRE)
    await expect(window.page.locator(".troubles > li")).to_have_count(50)
    await expect(window.page.locator("summary", has_text="45 more problems")).to_be_visible()
    await expect(window.row("shop")).to_be_in_viewport()  # the clients are not below all of them
    await look(window, tmp_path, "fifty", places(client=f"client?client_id=shop&iss={ISSUER}"))


async def test_unreachable_broker(
    service: Service, new_window: NewWindow, own_node: RabbitmqNode, tmp_path: Path
) -> None:
    """What the worker that is asked knows by itself."""
    service.site.config["queue"] = {"url": own_node.url, "buckets": 2}
    service.site.write()
    async with service.worker() as running:
        window = await new_window(running)
        await window.sign_in(SRE)
        await asyncio.to_thread(own_node.ctl, "stop_app")
        await expect(window.page.locator(".pulse.bad")).to_contain_text("The queue is unavailable")
        await expect(window.page.get_by_text("Unknown: the queue is unavailable.")).to_be_visible()
        await window.go("clients")
        await expect(window.row("shop")).to_contain_text("unknown")  # pending deliveries may be at other workers
        shop = f"client?client_id=shop&iss={ISSUER}"
        await window.go(shop)
        await expect(
            window.page.get_by_text("Pending deliveries are unknown: these are figures of 1 worker")
        ).to_be_visible()
        await look(window, tmp_path, "broker", places(client=shop))
