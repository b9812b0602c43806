"""`notifier sources`: what the sources are, and what a recorded message becomes, before anything is bound."""

import json
from pathlib import Path

import pytest

from tests.cli.in_process import notifier
from tests.features.sources.source_documents import RECORDED

ISS = "https://id.example.com"
SOURCES = {
    "duende": {"preset": "duende", "issuer": ISS, "bind": [{"exchange": "Shop:LoggedOut"}]},
    "own": {
        "issuer": ISS,
        "event": {"sub": '"$headers"."X-User"', "id": '"$properties".message_id', "clients": "apps"},
    },
    "broken": {"preset": "duend", "issuer": ISS, "event": {"sub": "lowr(a)"}},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A configuration with these sources, and a message of Duende."""
    config = {"issuers": {ISS: {"keys": [{"file": "n.json"}]}}, "sources": SOURCES}
    (tmp_path / "n.json").write_text(json.dumps(config))
    whole = json.loads((RECORDED / "duende" / "mt8.5.12-is8-masstransit-context.json").read_text())
    (tmp_path / "message.json").write_text(json.dumps(whole["body"]))
    return tmp_path


def test_a_recorded_message_is_shown_as_the_event_that_it_becomes(folder: Path) -> None:
    """In words and as JSON; from a file, and by --header and --property what came beside it."""
    done = notifier("sources", "try", "-c", "n.json", "duende", "message.json", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "  clients   shop, mail\n" in done.stdout
    (folder / "own.json").write_text('{"apps": ["a", 5]}')
    beside = ("--header", "x-user: alice", "--property", "message_id=m-1", "--json")
    done = notifier("sources", "try", "-c", "n.json", "own", "own.json", *beside, cwd=folder)
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["events"]) == (1, [{"id": "m-1", "iss": ISS, "sub": "alice", "clients": ["a"]}])
    assert [mistake["path"] for mistake in answer["mistakes"]] == ["sources.own.event.clients[1]"]


def test_a_source_that_is_wrong_exits_2_with_each_mistake(folder: Path) -> None:
    """And so does one that does not exist, with the nearest name."""
    done = notifier("sources", "try", "-c", "n.json", "broken", "message.json", cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert "sources.broken.preset: there is no preset duend; did you mean duende?" in done.stderr
    assert "sources.broken.event.sub: there is no function lowr(); did you mean lower()?" in done.stderr
    done = notifier("sources", "try", "-c", "n.json", "duened", "message.json", cwd=folder)
    assert (done.returncode, "did you mean duende?" in done.stderr) == (2, True)


def test_sources_and_presets_are_listed(folder: Path) -> None:
    """The presets even without a configuration."""
    done = notifier("sources", "list", "-c", "n.json", cwd=folder)
    assert "  from    exchange Shop:LoggedOut\n" in done.stdout
    listed = json.loads(notifier("sources", "list", "--json", cwd=folder).stdout)
    assert (listed["sources"], "duende" in {each["preset"] for each in listed["presets"]}) == ([], True)
