"""What is made of other files is up to date. Where it is not: `make chart`, and commit what it changes."""

from typing import Any

import yaml

from tools.chart import SOURCE, generated, schema
from tools.chart_rendering import CHART


def test_what_is_generated_is_up_to_date() -> None:
    """values.schema.json, README.md, and the copies of alerts and dashboard. If not: `make chart`."""
    assert [path for path, text in generated().items() if path.read_text() != text] == [], "run `make chart`"


def test_every_value_is_described() -> None:
    """Each member of values.yaml has a type and a text, and each that has one is in values.yaml."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    definitions = schema()["$defs"]

    def look(member: dict[str, Any], value: object, path: str) -> None:
        described = {**definitions.get(member.get("$ref", "").removeprefix("#/$defs/"), {}), **member}
        assert described.get("description"), path
        assert {"type", "enum", "const"} & described.keys(), path
        if path in ("config", "clients") or not isinstance(value, dict):
            return
        for name, inner in value.items():
            if "properties" in described:
                look(described["properties"][name], inner, f"{path}.{name}")

    members = yaml.safe_load(SOURCE.read_text())["properties"]
    assert values.keys() == members.keys() - {"global"}
    for name, value in values.items():
        look(members[name], value, name)
