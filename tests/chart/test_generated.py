"""What is made of other files is up to date. Where it is not: `make chart`, and commit what it changes."""

from tools.chart import generated


def test_what_is_generated_is_up_to_date() -> None:
    """values.schema.json, README.md, and the copies of alerts and dashboard. If not: `make chart`."""
    assert [path for path, text in generated().items() if path.read_text() != text] == [], "run `make chart`"
