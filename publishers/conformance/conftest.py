"""Which publishers are tried, and in which form.

    python -m pytest publishers/conformance --publisher python --form whole

Without `--publisher` every one that can be had here is tried. `--form short` makes small numbers of everything, and is
the default.
"""

from pathlib import Path

import pytest

SUBJECTS = sorted(found.stem for found in (Path(__file__).parent / "subjects").glob("[a-z]*.py"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """The two choices."""
    parser.addoption("--publisher", action="append", choices=SUBJECTS, help="try this one alone (again for more)")
    parser.addoption("--form", choices=["short", "whole"], default="short", help="small numbers, or those of a release")
