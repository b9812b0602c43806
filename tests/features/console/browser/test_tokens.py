"""What each kind of token sees, and that nobody who may not act finds a button."""

import json
import shlex

import pytest
from playwright.async_api import expect

from tests.features.console.browser.conftest import SRE, SUPPORT, TOKENS, NewWindow, Service
from tests.features.console.browser.window import PAGES, Window
from tests.system.site import API_TOKEN, ISSUER
from tests.system.worker_process import WorkerProcess

ACTS = "main button.do, main button.danger, main button.danger-quiet, main .ways button"


async def refusal(window: Window, token: str) -> str:
    """Return the error of the sign-in for a token."""
    await window.open()
    await window.page.fill("#token", token)
    await window.page.press("#token", "Enter")
    return await window.page.locator("[role=alert]").inner_text()


async def test_who_is_refused(running: WorkerProcess, new_window: NewWindow) -> None:
    """An unknown token, and a token without the scope read. Neither is stored."""
    window = await new_window(running)
    assert "token" in await refusal(window, "nobody-0123456789abcdef")
    assert "read" in await refusal(window, API_TOKEN)
    assert await window.page.evaluate("sessionStorage.length") == 0


async def test_a_token_that_may_only_read_sees_no_button(
    service: Service, running: WorkerProcess, new_window: NewWindow
) -> None:
    """On no page, and the API would refuse."""
    await service.sign_out(running, "shop", 2, answered=503)
    await service.sign_out(running, "payroll", 2, answered=404)
    window = await new_window(running)
    await window.sign_in(SUPPORT)
    await expect(window.row("shop")).to_be_visible()
    client = f"client?client_id=shop&iss={ISSUER}"
    for place in (*PAGES, client, f"waiting?client_id=shop&iss={ISSUER}"):
        await window.go(place)
        await expect(window.page.locator(ACTS)).to_have_count(0)
    assert "read only" in await window.page.locator(".me").inner_text()
    status, _ = await running.ask("POST", "/v1/retry", SUPPORT, {"client_id": "shop", "iss": ISSUER})
    assert status == 403


async def test_without_tokens_it_looks_and_never_acts(service: Service, new_window: NewWindow) -> None:
    """On the loopback interface: no sign-in, no button, and no request of a page changes anything."""
    del service.site.config["api"]["tokens_file"]
    service.site.write()
    async with service.worker() as running:
        window = await new_window(running)
        await window.open()
        await expect(window.page.locator(".pulse.good")).to_be_visible()
        for place in PAGES:
            await window.go(place)
            await expect(window.page.locator(ACTS)).to_have_count(0)
        for place, command in (("doctor", "notifier doctor"), ("find?event_id=some", "notifier log-id")):
            await window.go(place)
            await expect(window.page.get_by_role("note")).to_contain_text(command)
            await expect(window.page.get_by_role("main").get_by_role("button")).to_have_count(0)
            await expect(window.page.get_by_role("alert")).to_have_count(0)
        act = "fetch('/v1/dead-letters?all=true', {method: 'DELETE'}).then((answer) => answer.status)"
        assert await window.page.evaluate(act) == 403


async def test_a_withdrawn_token_ends_the_session(
    service: Service, running: WorkerProcess, new_window: NewWindow
) -> None:
    """Nothing that was shown stays, and the tab forgets it."""
    window = await new_window(running)
    await window.sign_in(SRE)
    (service.site.folder / "tokens.yaml").write_text(json.dumps([TOKENS[0], TOKENS[2]]))
    await service.reload(running)
    await expect(window.page.locator("#token")).to_be_visible()
    assert await window.page.evaluate("sessionStorage.length") == 0
    assert "shop" not in await window.page.inner_text("body")


@pytest.mark.parametrize("token", [SRE, SUPPORT])
async def test_it_stays_in_the_tab(running: WorkerProcess, new_window: NewWindow, token: str) -> None:
    """It outlives a reload of the page; signing out ends it."""
    window = await new_window(running)
    await window.sign_in(token)
    await window.page.reload()
    await expect(window.page.locator(".pulse.good")).to_be_visible()
    assert token not in window.page.url
    await window.page.get_by_role("button", name="Sign out").click()
    await expect(window.page.locator("#token")).to_be_visible()
    assert await window.page.evaluate("sessionStorage.length") == 0


async def test_no_name_breaks_out_of_a_command_to_copy(service: Service, new_window: NewWindow) -> None:
    """A user may choose a name at the provider, and whoever looks for it in the log pastes it into a shell."""
    name = "o'brien'; touch owned #"
    tokens = [{**token, "name": name} if token["token"] == SRE else token for token in TOKENS]
    (service.site.folder / "tokens.yaml").write_text(json.dumps(tokens))
    async with service.worker() as running:
        await running.ask("POST", "/v1/find", SRE, {"event_id": "e"})
        await running.ask("PUT", "/v1/log-level", SRE, {"level": "info"})
        window = await new_window(running)
        await window.sign_in(SRE)
        await window.go("acts")
        await expect(window.row("log level")).to_be_visible()
        command = await window.row("looked for").locator("code").inner_text()
    *words, looked_for, file = shlex.split(command)
    assert (words, file) == (["jq", "-c"], "notifier.log")
    assert json.loads(looked_for.rpartition(" == ")[2].removesuffix(")")) == name
