"""Command-line facts that need a process: interrupts, readers that leave, brokers that die, internal errors."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import TextIO

import pytest

from notifier.model.message import DEAD, Lane
from tests.contract.dead_letter_samples import dead_letter
from tests.operators.deliveries.test_dead_letters_command import Place
from tests.publishing.test_publish_command import EVENT
from tests.support.rabbitmq_node import RabbitmqNode
from tests.support.topologies import declare_at_once
from tests.system.command import ROOT, environment
from tests.system.loaded_program import begun

MANY = 5_000


@pytest.mark.full
def test_closed_stdout_prints_no_error(tmp_path: Path) -> None:
    """`notifier schema config | head -1` ends without a word."""
    with begun(["schema", "config"], cwd=tmp_path, env=environment()) as (process, out):
        out.close()
    assert (process.exitcode, (tmp_path / "errors").read_text()) == (1, "")


def test_internal_error_is_one_line_without_its_text(tmp_path: Path) -> None:
    """The error's text might quote a user; only its origin is printed."""
    code = (
        "import notifier.cli.application as application, notifier.cli.schema_command as schema\n"
        "def broken(): raise RuntimeError('alice')\n"
        "schema.SCHEMAS['event'] = broken\n"
        "application.main()"
    )
    run = [sys.executable, "-c", code, "schema", "event"]
    done = subprocess.run(run, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stderr == "notifier: internal error, RuntimeError at <string>:2\n"


def test_terminal_without_utf_8_shows_replacement_characters() -> None:
    """Instead of a UnicodeEncodeError. JSON stays exact, by escapes."""
    code = (
        "import notifier.cli.application as application, notifier.cli.schema_command as schema\n"
        "from notifier.operators.terminal.output import say\n"
        "schema.SCHEMAS['event'] = lambda: say('caf\u00e9 \u2013') or {'name': 'caf\u00e9 \U0001f600'}\n"
        "application.main()"
    )
    run = [sys.executable, "-c", code, "schema", "event"]
    env = {**environment(), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(run, cwd=ROOT, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    first, _, document = done.stdout.partition("\n")
    assert (first, json.loads(document)) == ("caf? ?", {"name": "café 😀"})


def test_library_without_an_imported_member_is_named(tmp_path: Path) -> None:
    """A version that pip would not have chosen may be installed: the error names the
    missing member and the next step.
    """
    code = (
        "import sys, types; sys.modules['aiohttp'] = types.ModuleType('aiohttp')\n"
        "import notifier.cli.application as application\n"
        "application.main()"
    )
    (tmp_path / "n.yaml").write_text("registry: {file: clients.yaml}\n")
    run = [sys.executable, "-c", code, "check", "-c", str(tmp_path / "n.yaml")]
    done = subprocess.run(run, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "'aiohttp'" in done.stderr
    assert done.stderr.endswith("; `pip check` names the packages that do not fit\n")


def publishing(folder: Path, *words: str) -> AbstractContextManager[tuple[ForkServerProcess, TextIO]]:
    """A process that publishes many events: more than fit into the pipe that its answers go to."""
    (folder / "many.jsonl").write_text((json.dumps(EVENT) + "\n") * MANY)
    return begun(["publish", *words, "many.jsonl"], cwd=folder, env=environment())


@pytest.mark.full
def test_broker_death_during_publish_reports_each_line(own_node: RabbitmqNode, tmp_path: Path) -> None:
    """Exit 1 soon, with the result of every line, so that a script can send the unconfirmed ones."""
    asyncio.run(declare_at_once(own_node.url, "notifier"))
    with publishing(tmp_path, "--url", own_node.url, "--json") as (process, out):
        first = out.readline()
        own_node.kill()
        reported = [json.loads(line) for line in [first, *out]]
    errors = (tmp_path / "errors").read_text()
    assert process.exitcode == 1
    assert sorted(each["line"] for each in reported) == list(range(1, MANY + 1))
    confirmed = {each["line"] for each in reported if each["confirmed"]}
    assert 0 < len(confirmed) < MANY
    assert f"-{MANY}; send again, a copy does no harm" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("how", ["ctrl-c", "closed stdout"])
def test_interrupted_publish_reports_confirmed_lines(how: str, tmp_path: Path) -> None:
    """Ctrl-C (exit 130) and a reader that leaves (exit 1): the confirmed lines are reported without a traceback."""
    with publishing(tmp_path, "--url", "sqlite:q.db", "--json") as (process, out):
        out.readline()
        if how == "ctrl-c":
            os.kill(process.pid or 0, signal.SIGINT)
            out.read()
    errors = (tmp_path / "errors").read_text()
    assert process.exitcode == (130 if how == "ctrl-c" else 1)
    reported = re.sub(r"^confirmed: [0-9,]+ of 5,000\n", "", errors, flags=re.MULTILINE)  # progress, on a slow machine
    assert reported.startswith("notifier: interrupted\n  confirmed: line 1")
    assert "Traceback" not in errors


def test_interrupted_replay_stops_between_batches(tmp_path: Path) -> None:
    """The replayed dead letters are reported, and the rest stays."""
    place = Place(tmp_path, {"NOTIFIER_QUEUE__URL": "sqlite:n.db"})
    place.fill([dead_letter(f"x-{number}") for number in range(30)])
    words = ["dead-letters", "replay", "--client-id", "shop", "--rate", "1", "--json"]
    with begun(words, cwd=tmp_path, env=environment(place.settings)) as (process, out):
        deadline = time.monotonic() + 60
        while not place.ready().get(Lane.RETRIES):
            assert time.monotonic() < deadline
        os.kill(process.pid or 0, signal.SIGINT)
        account = json.loads(out.read())
    assert process.exitcode == 1
    assert account["more"]
    assert place.ready() == {DEAD: 30 - account["replayed"], Lane.RETRIES: account["replayed"]}
