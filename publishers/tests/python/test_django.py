"""A real Django project on gunicorn: sign-ins and sign-outs over HTTP, sessions in SQLite, a real RabbitMQ."""

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from publishers.tests.python.harness import ISSUER, Queue, files, queue_at, until
from publishers.tests.python.server_process import ROOT, gunicorn

pytestmark = pytest.mark.full
SITE = "publishers.tests.python.django_site"


class Site:
    """The project. `run` serves it."""

    def __init__(self, folder: Path, amqp_url: str, prefix: str) -> None:
        self.outbox = folder / "outbox"
        self.log = folder / "log"
        self.database = folder / "db.sqlite3"
        self.notifier: dict[str, Any] = {
            "URL": amqp_url,
            "OUTBOX": str(self.outbox),
            "EXCHANGE": f"{prefix}.events",
            "BULK_EXCHANGE": f"{prefix}.bulk",
            "ISSUER": ISSUER,
            "CLIENTS": f"{SITE}.views.clients_of",
        }

    @property
    def environment(self) -> dict[str, str]:
        """What the project reads."""
        return {
            "DJANGO_SETTINGS_MODULE": f"{SITE}.settings",
            "SITE_DATABASE": str(self.database),
            "SITE_NOTIFIER": json.dumps(self.notifier),
        }

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`manage.py`."""
        environment = {**os.environ, **self.environment}
        command = [sys.executable, "-m", "django", *arguments]
        return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[str]:
        """Its URL."""
        async with gunicorn(f"{SITE}.wsgi:application", self.log, self.environment) as url:
            yield url

    @property
    def session_keys(self) -> set[str]:
        """Those that live."""
        with contextlib.closing(sqlite3.connect(self.database)) as database:
            return {key for (key,) in database.execute("SELECT session_key FROM django_session")}


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with Django's tables."""
    site = Site(tmp_path_factory.mktemp("django"), "amqp://guest:guest@127.0.0.1:1", "x")
    done = site.manage("migrate", "--verbosity", "0")
    assert done.returncode == 0, done.stderr
    return site.database


@pytest.fixture
def site(migrated: Path, tmp_path: Path, amqp_url: str, bare_prefix: str) -> Site:
    """One of a test's own."""
    made = Site(tmp_path, amqp_url, bare_prefix)
    made.database.write_bytes(migrated.read_bytes())
    return made


@contextlib.asynccontextmanager
async def browser(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """Open a browser with its own cookies."""
    async with aiohttp.ClientSession(url, cookie_jar=aiohttp.CookieJar(unsafe=True)) as made:
        yield made


async def sign_in(browser: aiohttp.ClientSession, user: str, **more: str) -> dict[str, Any]:
    """Return the claims of the ID token."""
    async with browser.get("/sign-in", params={"user": user, **more}) as answer:
        assert answer.status == 200
        return dict(await answer.json())


@dataclass(frozen=True, slots=True)
class ServedSite:
    """A site that runs, and where its events go."""

    site: Site
    url: str
    queue: Queue


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(migrated: Path, tmp_path_factory: pytest.TempPathFactory, amqp_url: str) -> AsyncIterator[ServedSite]:
    """One for the tests that kill nothing."""
    site = Site(tmp_path_factory.mktemp("served"), amqp_url, f"test-{secrets.token_hex(4)}")
    await asyncio.to_thread(shutil.copy, migrated, site.database)
    async with queue_at(amqp_url, site.notifier["EXCHANGE"].removesuffix(".events")) as queue, site.run() as url:
        yield ServedSite(site, url, queue)


def kept(outbox: Path) -> str:
    """All that its files hold at this moment."""
    found = ""
    for path in files(outbox):
        with contextlib.suppress(FileNotFoundError):
            found += path.read_text()
    return found


def events_of(queue: Queue, sub: str) -> list[dict[str, Any]]:
    """Return the events about this user."""
    return [event for event in queue.events if event["sub"] == sub]


@pytest.mark.asyncio(loop_scope="module")
async def test_each_logout_is_published_and_no_secret_is_stored(served: ServedSite) -> None:
    """With `sid` where the ID token has one. The session's key is neither in the outbox nor in the log."""
    seen, site, queue = "", served.site, served.queue
    async with browser(served.url) as anna, browser(served.url) as berta:
        signed_in = [await sign_in(anna, "anna", sid="1"), await sign_in(berta, "berta")]
        keys = site.session_keys
        assert len(keys) == 2
        for each in (anna, berta):
            async with each.get("/sign-out") as answer:
                assert await answer.text() == "signed out"
                seen += await asyncio.to_thread(kept, site.outbox)
        await until(lambda: all(events_of(queue, each["sub"]) for each in signed_in))
        await until(lambda: not files(site.outbox))
    for each_of_them in signed_in:
        (event,) = events_of(queue, each_of_them["sub"])
        assert event.get("sid") == each_of_them["sid"]
        assert (event["iss"], event["reason"]) == (ISSUER, "user_logout")
        assert event["clients"] == ["mail", f"app-of-{each_of_them['sub']}"]
    assert site.session_keys == set()
    seen += await asyncio.to_thread(site.log.read_text)
    assert not [key for key in keys if key in seen]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_rolled_back_logout_is_not_published(served: ServedSite) -> None:
    """The view fails after `logout()`, so the session lives. Its real end is published, once."""
    site, queue = served.site, served.queue
    async with browser(served.url) as carla:
        sub = (await sign_in(carla, "carla", sid="1"))["sub"]
        (key,) = site.session_keys
        async with carla.get("/sign-out-and-fail") as answer:
            assert answer.status == 500
        carla.cookie_jar.update_cookies({"sessionid": key})  # Django takes the cookie away, and the session lives
        async with carla.get("/whoami") as answer:
            assert (await answer.json())["user"] == "carla"
        assert len(files(site.outbox, ".pending")) == 1
        await asyncio.sleep(0.5)  # it is asked after 0.1 s and 0.3 s
        assert events_of(queue, sub) == []
        await carla.get("/sign-out")
        await until(lambda: events_of(queue, sub))
        await until(lambda: not files(site.outbox))
    assert len({event["id"] for event in events_of(queue, sub)}) == 1


@pytest.mark.asyncio(loop_scope="module")
async def test_all_sessions_of_a_user(served: ServedSite) -> None:
    """`user_ended`, for a changed password: no `sid`, so all of them."""
    async with browser(served.url) as dora:
        sub = (await sign_in(dora, "dora", sid="1"))["sub"]
        await dora.get("/end-all")
        await until(lambda: events_of(served.queue, sub))
        await dora.get("/sign-out")
    event = events_of(served.queue, sub)[0]
    assert (event.get("sid"), event["reason"]) == (None, "terminated")


async def test_killed_amid_a_logout(site: Site, queue: Queue) -> None:
    """The worker process dies by SIGKILL. Its pending event is published if the session is gone, else dropped."""
    signed_in: dict[str, dict[str, Any]] = {}
    async with site.run() as url:
        for when in ("before", "after"):
            async with browser(url) as user:
                signed_in[when] = await sign_in(user, when, sid="1")
                with contextlib.suppress(aiohttp.ClientError):
                    await user.get("/sign-out-and-die", params={"when": when})
        assert len(site.session_keys) == 1
    async with site.run() as url, browser(url) as other:
        await sign_in(other, "other")
        await other.get("/sign-out")
        await queue.until(2)
        await until(lambda: not files(site.outbox))
    assert events_of(queue, signed_in["before"]["sub"]) == []
    assert len({event["id"] for event in events_of(queue, signed_in["after"]["sub"])}) == 1


def test_mistakes_are_listed_and_stop_the_start(site: Site) -> None:
    """By `manage.py check`, all of them; a server does not start."""
    site.notifier = {"URL": "rabbit", "OUTBOX": "", "EXCHNAGE": "x", "CLIENTS": "nobody.knows"}
    checked = site.manage("check")
    assert checked.returncode != 0
    for name in ("URL", "OUTBOX", "EXCHNAGE", "CLIENTS", "ISSUER"):
        assert f"NOTIFIER: {name} " in checked.stderr
    command = [sys.executable, "-c", f"import {SITE}.wsgi"]
    environment = {**os.environ, **site.environment}
    started = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert started.returncode != 0
    assert "ImproperlyConfigured: NOTIFIER cannot be used:" in started.stderr
    assert "ISSUER is required" in started.stderr
