"""How a worker ends that cannot go on: its last words are a line of its log, in the log's own form."""

import json
import socket
from pathlib import Path

import pytest

from tests.system.command import notifier
from tests.system.site import Site


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_an_address_in_use(tmp_path: Path, log_format: str) -> None:
    """Whoever reads JSON gets JSON to the end; people get a sentence. The exit status is the same."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        site = Site(tmp_path, f"sqlite:{tmp_path / 'queue.db'}")
        site.config["ops"] = {"listen": f"127.0.0.1:{taken.getsockname()[1]}"}
        site.config["log"] = {"format": log_format}
        site.write()
        done = notifier("run", "-c", site.file, cwd=tmp_path)
    assert done.returncode == 2
    lines = (done.stdout + done.stderr).splitlines()
    if log_format == "json":
        last = [json.loads(line) for line in lines][-1]
        assert (last["event"], last["setting"]) == ("ended", "ops.listen")
        assert "is taken by another process" in last["reason"]
    else:
        assert any(line.startswith("notifier: 1 mistake in the configuration") for line in lines)
        assert lines[-1].startswith("  ops.listen: ")
