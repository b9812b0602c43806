"""The table of docs/evidence/faults.md has the faults of these tests, and no lost delivery."""

from tools.faults_table import DOCUMENT, catalogue, written


def test_table_has_exactly_the_faults_of_the_tests() -> None:
    """`make faults` writes the table."""
    assert {(row[0], row[1]) for row in written(DOCUMENT.read_text())} == set(catalogue())


def test_nothing_was_lost() -> None:
    """The last column counts lost deliveries."""
    rows = written(DOCUMENT.read_text())
    assert rows
    assert [row for row in rows if row[-1] != "0"] == []
