"""What a link can do to an operator who follows it: lead to a page, and nothing else."""

from urllib.parse import urlsplit

import pytest
from playwright.async_api import Request, expect

from tests.features.console.browser.conftest import SRE, NewWindow, Service
from tests.system.site import ISSUER
from tests.system.worker_process import WorkerProcess

LOOKS = ("/v1/find", "/v1/dead-letters/find", "/v1/waiting/find")  # what is looked for goes in a body


@pytest.mark.parametrize(
    "address",
    [f"{mark}{name}={SRE}" for mark in ("#", "#/?", "?") for name in ("token", "access_token")]
    + [f"?code={SRE}&state=stranger", f"#code={SRE}&state=stranger"],
)
async def test_no_address_signs_anybody_in(running: WorkerProcess, new_window: NewWindow, address: str) -> None:
    """Else a link would sign an operator in as whoever wrote it, who would be named for what the operator does."""
    window = await new_window(running)
    await window.open(address)
    await expect(window.page.locator("#token")).to_be_visible()
    assert await window.page.evaluate("sessionStorage.length") == 0


async def test_an_address_changes_nothing(service: Service, running: WorkerProcess, new_window: NewWindow) -> None:
    """Whatever the address contains: opening a page only reads."""
    await service.sign_out(running, "shop", 2, answered=404)
    window = await new_window(running)
    await window.sign_in(SRE)
    acts: list[str] = []

    def note(request: Request) -> None:
        path = urlsplit(request.url).path
        if request.method != "GET" and path not in LOOKS:
            acts.append(f"{request.method} {path}")

    window.page.on("request", note)
    wanted = f"client_id=shop&iss={ISSUER}&all=true&force=true&retry=now&replay=true&discard=true&limit=1"
    for page in ("client", "dead", "waiting", "clients", "keys", "doctor", "acts"):
        await window.go(f"{page}?{wanted}")
        await expect(window.dialog).to_have_count(0)
    await window.go("find?event_id=e1&subject=user-1")
    assert acts == []
