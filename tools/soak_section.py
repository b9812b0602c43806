"""Writes the figures of a soak into docs/evidence/faults.md, between their markers.

python -m tests.faults.soak --document
"""

import re
from pathlib import Path

from tests.faults.soak_figures import UNITS, Figures

DOCUMENT = Path(__file__).parents[1] / "docs/evidence/faults.md"
BEGIN, END = "<!-- soak: begin -->", "<!-- soak: end -->"


def _section(figures: Figures) -> str:
    """Return the section of the document."""
    account, faults = figures.account, figures.faults
    duplicates = sum(account.duplicates.values())
    lost = len(account.missing) + len(account.wrong) + sum(account.waiting.values())
    summary = (
        f"{figures.minutes:.0f} minutes, begun {figures.began}, seed {figures.seed}, RabbitMQ {figures.broker}:"
        f" {account.events:,} events of {account.deliveries:,} deliveries; {account.delivered:,} delivered,"
        f" {sum(account.dead.values()):,} refused by their client and dead letters, {duplicates:,} repeated,"
        f" {lost} lost. {sum(faults.values())} faults:"
    )
    rows = [f"| {what} | {count} |" for what, count in faults.items()]
    life = [
        f"| {course.what} | {course.early:.1f}{unit} | {course.late:.1f}{unit} | {course.most:.1f}{unit} |"
        f" {course.bound:.1f}{unit} |"
        for course in figures.courses
        for unit in [UNITS.get(course.what, "")]
    ]
    head = "| the worker that was never killed | second fifth | last fifth | most | bound |"
    return "\n".join(
        [summary, "", "| what was done | times |", "|---|--:|", *rows, "", head, "|---|--:|--:|--:|--:|", *life]
    )


def write_section(figures: Figures) -> None:
    """Put the figures between the markers."""
    text = DOCUMENT.read_text()
    made, count = re.subn(
        f"(?<={re.escape(BEGIN)}\n).*?(?={re.escape(END)})", lambda _: f"{_section(figures)}\n", text, flags=re.DOTALL
    )
    if count != 1:
        raise SystemExit(f"{DOCUMENT} has no place for it: no {BEGIN} … {END}")
    DOCUMENT.write_text(made)
