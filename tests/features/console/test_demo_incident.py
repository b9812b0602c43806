"""The incident of `notifier demo --console`, played quickly by the real service."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from notifier.demo.console_demo import (
    FAILING_CLIENT,
    DemoScenario,
    Incident,
    console_demo,
    play_incidents,
    sign_users_out,
)
from notifier.demo.story import ISS

QUICK = Incident(
    sign_out_interval_seconds=0.05, healthy_seconds=0.1, max_age_seconds=1, dead_letter_count=2, repair_seconds=0.5
)


@asynccontextmanager
async def played(incident: Incident) -> AsyncIterator[tuple[DemoScenario, asyncio.Queue[str]]]:
    """Run the incident; yield the scenario and its messages."""
    messages = asyncio.Queue[str]()
    async with console_demo(incident) as scenario, asyncio.TaskGroup() as group:
        playing = [
            group.create_task(sign_users_out(scenario, incident)),
            group.create_task(play_incidents(scenario, incident, messages.put_nowait)),
        ]
        yield scenario, messages
        for task in playing:
            task.cancel()


async def until(messages: asyncio.Queue[str], words: str) -> None:
    """Wait for a message with these words."""
    async with asyncio.timeout(60):
        while words not in await messages.get():
            pass


@pytest.mark.full
async def test_the_demo_repairs_the_client_by_itself() -> None:
    """A client goes down, its logouts become dead letters, and all of them are delivered in the end; and again."""
    async with played(QUICK) as (scenario, messages):
        for words in ("goes down", "has given up", "works again", "so the demo does", "every logout", "goes down"):
            await until(messages, words)
        assert not scenario.failing_client.invalid
        assert sum(record.accepted > 0 for record in scenario.failing_client.session_records.values()) >= 4


@pytest.mark.full
async def test_the_page_token_can_repair_the_client() -> None:
    """It may look and repair, and the demo leaves it to them."""
    patient = Incident(sign_out_interval_seconds=0.05, healthy_seconds=0.1, max_age_seconds=1, dead_letter_count=2)
    async with played(patient) as (scenario, messages), aiohttp.ClientSession(raise_for_status=True) as http:
        page = await (await http.get(scenario.address)).text()
        [token] = re.findall(r'"notifier\.token", "(.*?)"', page)
        headers, api = {"Authorization": f"Bearer {token}"}, scenario.address.partition("/demo/")[0]
        who = await (await http.get(f"{api}/v1/whoami", headers=headers)).json()
        assert (who["name"], who["scopes"], who["issuers"]) == ("you", ["read", "repair"], None)
        await until(messages, "works again")
        wanted = {"client_id": FAILING_CLIENT, "iss": ISS}
        async with asyncio.timeout(60):
            while messages.empty():  # logouts that waited may be given up a moment later
                await http.post(f"{api}/v1/dead-letters/replay", headers=headers, json=wanted)
                await asyncio.sleep(0.2)
        assert "every logout" in await messages.get()
