"""The README's table of settings agrees with the code."""

import re
from dataclasses import MISSING, fields

from logout_notifier_publisher import PublisherSettings

from publishers.tests.python.server_process import ROOT

README = (ROOT / "publishers" / "python" / "README.md").read_text()
SOURCE = "".join(path.read_text() for path in (ROOT / "publishers" / "python" / "src").rglob("*.py"))


def rows(title: str) -> list[list[str]]:
    """The table with this in its head: its cells, row by row."""
    table = README.split(title, 1)[1].split("\n\n", 1)[0]
    return [re.split(r" *(?<!\\)\| *", line.strip("| ")) for line in table.splitlines()[2:]]


def words(cell: str) -> list[str]:
    """What is in back quotes or between commas."""
    return [word.strip(" `") for word in cell.split(",") if word.strip()]


def test_each_setting_has_its_row_and_default() -> None:
    """In any order."""
    shown = {}
    for names, defaults, *_ in rows("| setting | default | |"):
        given = words(defaults)
        shown.update({name: given[at] if at < len(given) else "" for at, name in enumerate(words(names))})
    real = {
        field.name: "required" if field.default is MISSING else "" if field.default is None else f"{field.default}"
        for field in fields(PublisherSettings)
    }
    assert shown == {name: value.removesuffix(".0") for name, value in real.items()}
