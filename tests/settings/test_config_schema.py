"""The JSON Schema of the configuration."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from notifier.settings.config_schema import config_schema
from notifier.settings.document_files import read_document
from tests.settings.config_sample import sample
from tests.settings.whole_settings import SETTINGS


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return config_schema(SETTINGS)


def _leaves(part: dict[str, Any], definitions: dict[str, Any], path: str) -> Iterator[str]:
    """Yield the path of each value of the configuration, with `*` for a name and `[]` for a place in a list."""
    part = definitions[part["$ref"].rpartition("/")[2]] if "$ref" in part else part
    inner = [(path, each) for each in part.get("anyOf", [])]
    inner += [(f"{path}.{name}".lstrip("."), each) for name, each in part.get("properties", {}).items()]
    for more, at in ((part.get("items"), f"{path}[]"), (part.get("additionalProperties"), f"{path}.*")):
        inner += [(at, more)] if isinstance(more, dict) and "$ref" in str(more) else []
    for at, each in inner:
        yield from _leaves(each, definitions, at)
    if not inner and part.get("type") != "null":
        yield path


class TestSchema:
    def test_takes_the_sample(self, tmp_path: Path, schema: dict[str, Any]) -> None:
        """The JSON Schema of the configuration is valid, and takes the samples."""
        jsonschema.Draft202012Validator.check_schema(schema)
        sample(tmp_path)
        for document, part in (("notifier.yaml", None), ("clients.yaml", "clients"), ("tokens.yaml", "tokens")):
            instance = json.loads(json.dumps(read_document(tmp_path / document), default=str))
            chosen = schema if part is None else {**schema["$defs"][part], "$defs": schema["$defs"]}
            jsonschema.Draft202012Validator(chosen).validate(instance)

    def test_describes_every_member(self, schema: dict[str, Any]) -> None:
        """Each member of the service's file and of a client has a description, and durations their unit."""
        definitions = schema["$defs"]
        nameless = [
            (name, member)
            for name in ("QueueSettings", "DeliverySettings", "ClientOptions", "ClientMetadata", "LogSettings")
            for member, value in definitions[name]["properties"].items()
            if "description" not in value
        ]
        assert nameless == []
        assert definitions["DeliverySettings"]["properties"]["timeout"]["default"] == "5s"
        assert definitions["OpsSettings"]["properties"]["listen"]["default"] == "127.0.0.1:9464"

    def test_has_few_settings(self, schema: dict[str, Any]) -> None:
        """215 paths that end in a value at most. The members of a client, as `registry.defaults` has them, are one."""
        paths = set(_leaves(schema, schema["$defs"], ""))
        assert len({re.sub(r"^(registry\.defaults)\..*", r"\1", path) for path in paths}) <= 215

    def test_refuses_a_misspelt_key(self, schema: dict[str, Any]) -> None:
        """Unknown keys are wrong by the schema too."""
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft202012Validator(schema).validate({"queu": {}})
