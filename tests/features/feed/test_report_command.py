"""`notifier report` on what a worker kept: the table, JSON for scripts, and a page that a browser shows."""

import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from notifier.features.feed.feed_file import FeedFile
from notifier.model.fate import ClientChange, ClientNotice, Fate, FeedNotice, Notice
from notifier.queues.sqlite.feed_table import Retention
from tests.cli.in_process import notifier
from tests.system.site import ISSUER


def told(number: int, fate: Fate, reason: str, *, at: float, client_id: str, took: float | None = None) -> FeedNotice:
    return Notice(
        id=f"id-{number}",
        at=at,
        fate=fate,
        reason=reason,
        iss=ISSUER,
        client_id=client_id,
        event_id=f"e{number}",
        propagation=took,
    )


def day(now: float) -> list[FeedNotice]:
    """300 logouts at three clients within the last hour; one of them fails, one has a name that is no name."""
    odd = "<script>document.title = 'owned'</script>"
    made: list[FeedNotice] = []
    for number in range(300):
        at = now - 60 - number * 10
        match number % 3:
            case 0:
                made.append(told(number, Fate.DELIVERED, "delivered", at=at, client_id="shop", took=0.1))
            case 1 if number < 10:
                made.append(told(number, Fate.DEAD, "refused", at=at, client_id="broken"))
            case 1:
                made.append(told(number, Fate.RETRYING, "timeout", at=at, client_id="broken"))
            case _:
                made.append(told(number, Fate.DELIVERED, "delivered", at=at, client_id=odd, took=4.0))
    made.append(ClientNotice(id="turn", at=now - 61, state=ClientChange.FAILING, iss=ISSUER, client_id="broken"))
    made.append(told(999, Fate.DEAD, "refused", at=now - 90_000, client_id="yesterday"))
    return made


def write(path: Path, outcomes: Sequence[FeedNotice]) -> None:
    file = FeedFile.open(path, Retention(most=1_000_000, age=1e9))
    file.keep(outcomes)
    file.close()


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    path = tmp_path / "outcomes.db"
    write(path, day(time.time()))
    return path


WIDE = {"COLUMNS": "160"}


def report(folder: Path, *arguments: str, mode: str = "all", url: str = "amqp://localhost/") -> CompletedProcess[str]:
    return notifier(
        "report", *arguments, cwd=folder, settings={"NOTIFIER_QUEUE__URL": url, "NOTIFIER_OUTCOMES": mode, **WIDE}
    )


def test_the_table_has_the_worst_client_first(kept: Path) -> None:
    """With what went wrong there; what is older than the period is left out."""
    done = report(kept.parent)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split() for line in done.stdout.splitlines()]
    (broken,) = [row for row in rows if row[:1] == ["broken"]]
    assert broken[:6] == ["broken", "0", "0.00", "%", "3", "97"]
    assert "failing now, refused (3 dead), timeout (97 retried)" in " ".join(done.stdout.split())
    assert done.stdout.index("broken") < done.stdout.index("shop ")
    assert "yesterday" not in done.stdout
    assert "yesterday" in report(kept.parent, "--since", "2d").stdout


def test_json_for_scripts(kept: Path) -> None:
    """A moment may stand for an age, and the page's path does not get among it."""
    done = report(kept.parent, "--json", "--since", "2020-01-01T00:00:00Z", "--html", "r.html")
    made = json.loads(done.stdout)
    by_client = {each["client_id"]: each for each in made["clients"]}
    assert by_client["shop"]["share"] == 1
    assert by_client["shop"]["slowest_seconds"] == 0.1
    assert by_client["broken"]["reasons"][0] == {"reason": "refused", "dead": 3, "retries": 0}
    assert by_client["yesterday"]["dead"] == 1
    assert made["total"]["delivered"] == 200


def test_the_page_loads_nothing_and_runs_nothing(kept: Path) -> None:
    """It has the figures of the table and plots with their numbers, and a client's name is text there."""
    report(kept.parent, "--html", "r.html")
    page = (kept.parent / "r.html").read_text()
    assert not [mark for mark in ("<script", "<link", "<img", "src=", "@import", "url(") if mark in page]
    assert "&lt;script&gt;document.title = &#39;owned&#39;&lt;/script&gt;" in page
    assert {"98.52 %", "failing now, refused (3 dead), timeout (97 retried)"} <= set(
        re.findall(r"<(?:td|b)>(.*?)<", page)
    )
    told = re.findall(r"<title>(.*?)</title>", page)
    assert "100 between 72.4 ms and 102 ms" in told
    assert "shop: median 98.1 ms, p99 98.1 ms, slowest 100 ms" in told
    assert len(re.findall("<svg", page)) == 4


def test_failures_alone_have_no_share(kept: Path) -> None:
    """It says so."""
    done = report(kept.parent, mode="failures")
    assert "–" in done.stdout
    assert "set all for shares and times" in done.stdout


def test_what_is_missing_is_told_with_the_way_out(tmp_path: Path) -> None:
    """A file, outcomes that are off, a period that is none."""
    missing = report(tmp_path)
    assert missing.returncode == 2
    assert "collect" in missing.stderr
    write(tmp_path / "outcomes.db", [])
    off = report(tmp_path, mode="off")
    assert off.returncode == 2
    assert "set it to all" in off.stderr
    assert "The feed holds nothing" in report(tmp_path).stdout
    assert report(tmp_path, "--since", "5").returncode == 2
    assert report(tmp_path, "--since", "1h", "--until", "2h").returncode == 2
    (tmp_path / "text.db").write_text("no database " * 100)
    torn = report(tmp_path, "--file", "text.db")
    assert (torn.returncode, torn.stdout) == (1, "")
    assert "cannot be used" in torn.stderr
