"""The program of this folder as a subject: right, or wrong in one way."""

from pathlib import Path

from publishers.conformance.subjects.python import Python


class Program(Python):
    """Its host is that of the Python package."""

    name = "program"
    module = "publishers.conformance.wrong.program"
    answer_within = 10.0


def subject(folder: Path, wrong: str = "") -> Program:
    """One, not started."""
    return Program(folder, "host", wrong)
