"""Walks the first logout of README.md and docs/tutorial.md as they are printed: each command, in order, in a shell."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.rabbitmq_node import free_ports
from tests.system.command import ROOT
from tests.system.shell import Shell, blocks

pytestmark = pytest.mark.full

PRINTED = ("9000", "9001", "8080")  # ports
RETRY = 90.0  # seconds: a client is tried again within half of the time for which it was down


@pytest.fixture
def shell(tmp_path: Path, amqp_url: str, prefix: str) -> Iterator[Shell]:
    """In an empty folder beside `docs`, as after `mkdir try && cd try`."""
    folder = tmp_path / "try"
    folder.mkdir()
    put_in = {
        "amqp://guest:guest@localhost:5672": amqp_url,
        **dict(zip(PRINTED, map(str, free_ports(len(PRINTED))), strict=True)),
    }
    settings = {"NOTIFIER_QUEUE__PREFIX": prefix, "NOTIFIER_OPS__LISTEN": "127.0.0.1:0"}
    made = Shell(folder, put_in, settings, {})
    receiver = tmp_path / "docs/examples/receiver.py"
    receiver.parent.mkdir(parents=True)
    receiver.write_text(made.as_here((ROOT / "docs/examples/receiver.py").read_text()))
    yield made
    made.end()


@pytest.mark.timeout(240)
async def test_tutorial_works_as_printed(shell: Shell) -> None:
    """A logout arrives; a client that is down gets it on recovery; a refused one is replayed once."""
    _, set_up, start, sign_out = blocks("README.md", "sh")
    for line in set_up.splitlines():
        if line.startswith(("notifier keys", "(umask")):
            await shell.run(line)
    for file in blocks("README.md", "yaml"):
        shell.write(file.splitlines()[0].removeprefix("# "), file)
    assert "no mistakes" in (output := await shell.run(start)) or "1 client" in output, output
    receiver, worker = 0, 1
    await shell.until_output(worker, "consuming")
    await shell.run(sign_out)
    await shell.until_output(receiver, '"sid":"08a5019c"')

    down, wrong = blocks("docs/tutorial.md", "yaml")
    publish, status, come_back, refused, replay, clean_up = blocks("docs/tutorial.md", "sh")
    shell.write("clients.yaml", down, "a")
    await shell.until_output(worker, "reloaded")
    output = await shell.run(publish.replace("--wait 5s", "--wait 5s || test $? = 3"))  # `mail` is retried
    assert re.search(r"shop\b.*delivered|delivered.*shop\b", output), output
    assert re.search(r"mail\b.*retrying|retrying.*mail\b", output), output
    output = await shell.run(status)
    assert "mail" in output
    assert "delayed" in output
    await shell.run(come_back)
    await shell.until_output(2, '"sid":"08a5019c"', patience=RETRY)

    shell.write("clients.yaml", wrong, "a")
    await shell.until_output(worker, "reloaded", 2)
    output = await shell.run(refused.replace("--wait 5s", "--wait 5s || test $? = 1"))  # it is dead by then
    assert "refused" in output
    assert "The delivery becomes a dead letter at once" in output
    clients = shell.folder / "clients.yaml"
    uris = re.findall(r"backchannel_logout_uri: (\S+)", clients.read_text())
    clients.write_text(clients.read_text().replace(uris[-1], uris[0]))
    assert "1 delivered" in (output := await shell.run(replay)), output
    await shell.until_output(receiver, '"sid":"08a5019c"', 3)
    assert "wiki" not in await shell.run("notifier dead-letters list -c notifier.yaml")
    shell.end()
    delete = next(line for line in clean_up.splitlines() if line.startswith("notifier"))
    assert (await shell.run(delete)).startswith("deleted ")
