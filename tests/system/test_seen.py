"""Whatever came from outside, nothing that a terminal would obey is written by any command, to a terminal or not.

Controls, bidirectional marks and rich's own markup are in everything that publishers and clients can choose: members
and their names, AMQP properties, header names, ids of clients, answers of clients.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.system.broker import Broker, broker
from tests.system.clients import Clients, Hit
from tests.system.command import notifier_at
from tests.system.site import API_TOKEN, ISSUER, Site, client
from tests.system.terminal import written
from tests.system.waiting import until
from tests.system.worker_process import WorkerProcess, worker

pytestmark = pytest.mark.full

CONTROLS = "\x1b]0;owned\x07\x1b[6n\x9b6n\x9d0;owned\x9c\x7f\x85\r"
MARKS = "\u202e\u2066\u2069\u200e\u200f\u061c\u2028\u2029\u200b\ufeff\U000e0041"
MARKUP = "[bold red]x[/bold red][/] :warning:"
BAD = f"{CONTROLS}{MARKS}{MARKUP}"
NAME = f"sh{MARKS}op{MARKUP}"  # what a valid event may name a client, a user and itself
REFUSES = "re\u202e[red]fuses\u2066:warning:"  # a registered one
COLUMNS = 400
# What rich draws with: colours, the cursor and the lines of a bar.
DRAWN = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\?25[hl]|\x1b\[[0-9]*[AK]|\r")


def obeyed(output: str) -> set[str]:
    """The characters in it that are there to be obeyed."""
    return {char for char in DRAWN.sub("", output) if not char.isprintable() and char != "\n"}


def events() -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Malformed ones, and valid ones of clients that nobody knows, that refuse, that are wrong."""
    everywhere = dict.fromkeys(("id", "iss", "sub", "sid", "reason", "ended_at", "not_after", BAD), BAD)
    entries = [{"client_id": BAD, BAD: BAD, "sub": 7}, {"client_id": NAME, "sid": BAD}, BAD, {BAD: BAD}]
    properties = {
        "message_id": BAD[:60],
        "app_id": BAD[:60],
        "type": BAD[:60],
        "headers": {BAD: BAD, "cloudEvents:id": BAD},
    }
    yield json.dumps(everywhere | {"clients": entries}).encode(), properties
    yield json.dumps(everywhere | {"clients": BAD}, ensure_ascii=False).encode(), {"content_type": f"text/{BAD}"[:200]}
    yield b"\xff\x9b6n" + BAD.encode(), {"message_id": BAD[:60]}
    yield BAD.encode(), {"headers": {"cloudEvents:specversion": BAD, f"cloudEvents:{BAD}": BAD}}
    yield json.dumps({"specversion": "1.0", "id": BAD, "source": BAD, "type": BAD, "data": everywhere}).encode(), {}
    named = {"id": NAME, "iss": ISSUER, "sub": NAME, "sid": NAME, "reason": NAME}
    yield (
        json.dumps(named | {"clients": [NAME, REFUSES, {"client_id": NAME, "sub": NAME, BAD: 1}, BAD, 7]}).encode(),
        {},
    )
    yield json.dumps(named | {"iss": NAME, "clients": "*"}).encode(), {}


async def judge(hit: Hit) -> web.Response:
    """Refuse with a hostile text."""
    return web.Response(status=403, text=BAD)


class Seen:
    """An installation where all of that has come."""

    def __init__(self, site: Site, running: WorkerProcess) -> None:
        self.site = site
        self.running = running

    async def on_a_terminal(self, *words: str) -> str:
        """What a command writes there, without what rich draws with; nothing in it is to be obeyed."""
        words = (*words, "-c", str(self.site.file))
        shown = await asyncio.to_thread(written, words, self.site.folder, columns=COLUMNS)
        assert obeyed(shown) == set(), words
        return DRAWN.sub("", shown)

    async def piped(self, *words: str) -> str:
        """Likewise to a pipe; returns its stdout."""
        done = await notifier_at(self.site, *words)
        assert obeyed(done.stdout + done.stderr) == set(), words
        return done.stdout


async def dead_letters(rabbit: Broker) -> int:
    return (await rabbit.depths(["dead"])).get("dead", 0)


@pytest.fixture
async def seen(tmp_path: Path, amqp_url: str, prefix: str) -> AsyncIterator[Seen]:
    """A worker that has had all of it, and its dead letters."""
    site = Site(tmp_path, amqp_url, prefix)
    site.config["outcomes"] = "all"
    site.config["api"].pop("tokens_file")
    (tmp_path / "log.key").write_text("k" * 32)
    site.config["log"] |= {"level": "debug", "subject_key_file": "log.key"}
    site.write()
    async with Clients(judge) as clients, broker(amqp_url, prefix) as rabbit:
        site.write_clients([client(REFUSES, clients.url("refuses"))])
        async with worker(site) as running:
            made = Seen(site, running)
            for body, properties in events():
                await rabbit.publish(body, **properties)
            await running.until_logged("dead_letter", lambda line: line["reason"] == "unknown_issuer")
            await running.until_logged("dead_letter", lambda line: line["reason"] == "unknown_client")
            await until(lambda: dead_letters(rabbit), lambda count: count >= 8)
            yield made
            await running.stop()


@pytest.mark.timeout(300)
async def test_commands_print_no_terminal_control_characters(seen: Seen) -> None:
    """In words, as JSON, in tables and pages; and JSON for scripts loses nothing."""
    listed = await seen.on_a_terminal("dead-letters", "list", "--json")
    rows = [json.loads(line[line.index("{") :]) for line in listed.splitlines() if "{" in line]
    assert len(rows) >= 8
    assert any(row["client_id"] == NAME for row in rows)
    exported = [json.loads(line) for line in (await seen.piped("dead-letters", "export", "-")).splitlines()]
    assert any(each.get("raw", {}).get("body") == BAD for each in exported)
    for look in (seen.piped, seen.on_a_terminal):
        assert MARKUP in await look("dead-letters", "list")
        assert "[red]fuses" in await look("status", "--all")
    assert MARKUP in await seen.on_a_terminal("dead-letters", "list", "--rows")
    for row in {row["reason"]: row for row in rows}.values():
        assert MARKUP in await seen.on_a_terminal("dead-letters", "show", row["id"])
    event = {"iss": ISSUER, "id": NAME, "sub": NAME, "clients": [NAME, REFUSES]}
    (seen.site.folder / "event.json").write_text(json.dumps(event))
    assert "[red]fuses" in await seen.on_a_terminal("publish", "--wait", "5s", "event.json")
    (seen.site.folder / "bad.json").write_text(json.dumps(event | {"not_after": BAD, "clients": BAD, BAD: BAD}))
    assert "2 mistakes" in await seen.on_a_terminal("publish", "bad.json")
    for words in (("dead-letters", "replay", "--all"), ("status", "--json"), ("topology", "show"), ("check",)):
        await seen.on_a_terminal(*words)
    assert "[red]fuses" in await seen.on_a_terminal("doctor")
    assert obeyed(seen.running.log) == set()


async def test_api_answers_have_no_terminal_control_characters(seen: Seen) -> None:
    """`curl` writes it as it comes."""
    api = await seen.running.at("api")
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {API_TOKEN}"}) as session:
        for path in ("/v1/dead-letters?rows=50", "/v1/dead-letters", "/v1/dead-letters/export", "/v1/status"):
            async with session.get(api + path) as response:
                text = await response.text()
                assert (response.status, obeyed(text)) == (200, set()), path
        for body, _ in events():
            headers = {"Content-Type": "application/json"}
            async with session.post(f"{api}/v1/events?wait=1s", data=body, headers=headers) as response:
                assert obeyed(await response.text()) == set()
