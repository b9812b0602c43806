"""A command in a text is not broken over two lines, so that it can be copied, as far as it fits into one."""

import re
from pathlib import Path

import pytest

from notifier.operators.doctor.runbook import sections
from notifier.operators.terminal.output import wrapped
from tests.cli.in_process import notifier as run

COMMAND = re.compile(r"`(notifier [^`\n]+)`")


@pytest.mark.parametrize("width", [60, 80, 100])
def test_each_command_of_the_runbook_is_on_one_line(width: int, tmp_path: Path) -> None:
    """Whatever the width; cells of tables are left out."""
    shown = run("explain", "--all", cwd=tmp_path, settings={"COLUMNS": str(width)}).stdout
    text = "\n".join(line for section in sections().values() for line in section.text.split("\n") if line[:1] != "|")
    commands = {command for command in COMMAND.findall(text) if len(command) <= width - 10}
    assert len(commands) > 20
    assert [command for command in sorted(commands) if command not in shown] == []


def test_a_line_of_advice_ends_before_a_command() -> None:
    """A command that is longer than a line is broken as other text is."""
    assert wrapped("the key is missing: run `notifier doctor -c n.yaml` now", 40).split("\n") == [
        "the key is missing: run",
        "  `notifier doctor -c n.yaml` now",
    ]
    assert wrapped("more of it in notifier explain refused", 30).split("\n") == [
        "more of it in",
        "  notifier explain refused",
    ]
    assert "`notifier doctor\n" in wrapped("see `notifier doctor -c a-very-long-name.yaml`", 22)
