"""Test YAML and JSON files, sections of features, and the schema."""

import gc
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from notifier.configuration.configured_feature import ConfiguredFeature, settings_model
from notifier.configuration.loading import LoadedConfiguration, load
from notifier.model.errors import ConfigurationError
from notifier.settings.config_file import load_settings, read_sections
from notifier.settings.config_schema import config_schema
from notifier.settings.document_files import _resolve_short, parse_yaml, read_document
from notifier.settings.input_issues import explain
from notifier.settings.service_settings import Settings
from notifier.settings.values import Section
from tests.settings.config_sample import sample, write
from tests.settings.whole_settings import SETTINGS
from tests.tokens.key_folder import ISS, pem

# ── YAML: values and errors ──────────────────────────────────────────────────────────────────────────────────────────


TEXTS = st.sampled_from(
    ["a", "b", "on", "x y", "", "1", "1:30", "2026-01-02", "https://x/?y#z", "Grüße", "a: b", "- c"]
)
VALUES = st.recursive(
    TEXTS | st.sampled_from([1, 1.5, True, None]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


class TestYaml:
    def test_only_short_scalars_are_kept(self) -> None:
        """4,096 long ones would be hundreds of MiB."""
        before = _resolve_short.cache_info().currsize
        assert parse_yaml("[" + ", ".join(f"t{nth}{'x' * 200}" for nth in range(50)) + "]")
        assert _resolve_short.cache_info().currsize == before

    def test_anchors_and_merges(self, tmp_path: Path) -> None:
        """Anchors, aliases and merged mappings work as in YAML; own members override merged ones."""
        path = write(
            tmp_path,
            "a: &one {x: 1, y: &two [yes, ~, 1.5, 'no', 0x10]}\nb: {<<: *one, x: 2}\nc: {<<: [{x: 3}, *one]}\nd: *two\n"
            "e: !!str 5\nf: |\n  text\n",
        )
        two = [True, None, 1.5, "no", 16]
        assert read_document(path) == {
            "a": {"x": 1, "y": two},
            "b": {"x": 2, "y": two},
            "c": {"x": 3, "y": two},
            "d": two,
            "e": "5",
            "f": "text\n",
        }

    @pytest.mark.parametrize("place", ["c: *x9", "c: {<<: {a: *x9}}", "c: [*x9]"])
    def test_values_of_aliases_are_bounded(self, tmp_path: Path, place: str) -> None:
        """Ten lines can stand for 10^10 values, which later steps would visit and copy."""
        lines = [f"x{nth}: &x{nth} [{', '.join([f'*x{nth - 1}' if nth else 'l'] * 10)}]" for nth in range(10)]
        path = write(tmp_path, "\n".join([*lines, place]))
        with pytest.raises(
            ConfigurationError, match=r"line 6, column \d+: aliases stand for more than 1,000,000 values"
        ):
            read_document(path)

    def test_many_merges_of_one_anchor_are_read(self) -> None:
        """Each of many clients may have the members of an anchor; a copy of a large mapping for each is refused."""
        text = "- &all {a: 1, b: 2, c: 3, d: 4}\n" + "- {<<: *all, e: 5}\n" * 1000
        assert (
            parse_yaml(text) == [{"a": 1, "b": 2, "c": 3, "d": 4}] + [{"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}] * 1000
        )
        large = ", ".join(f"k{nth}: 1" for nth in range(2000))
        with pytest.raises(yaml.YAMLError, match="aliases stand for more than"):
            parse_yaml(f"- &all {{{large}}}\n" + "- {<<: *all, e: 5}\n" * 500)

    def test_nesting_by_aliases_is_bounded(self, tmp_path: Path) -> None:
        """As nesting in the text."""
        lines = ["- &x0 [l]", *(f"- &x{nth} [*x{nth - 1}]" for nth in range(1, 200))]
        with pytest.raises(ConfigurationError, match="is nested too deeply"):
            read_document(write(tmp_path, "\n".join(lines)))

    @given(VALUES)
    @settings(max_examples=60, derandomize=True)
    def test_written_yaml_is_read_back(self, value: object) -> None:
        """Any YAML written by a program is read as the same values and types."""
        for style in (None, False):
            assert repr(parse_yaml(yaml.safe_dump(value, default_flow_style=style, sort_keys=False))) == repr(value)

    @pytest.mark.parametrize("text", ["a: &x [*x]", "a: {<<: 5}"])
    def test_meaningless_yaml(self, tmp_path: Path, text: str) -> None:
        """A value that contains itself, and a merge with a non-mapping, are errors with their position."""
        with pytest.raises(ConfigurationError) as caught:
            read_document(write(tmp_path, text))
        assert "line 1, column" in str(caught.value)


@pytest.mark.parametrize(
    "scalar",
    ["1" + ":1" * 100, "1" + ":1" * 1000 + ".5", "!!int 1" + ":1" * 100, "!!bool x", "!!timestamp x"],
    ids=["base 60", "base 60, too large", "tagged", "no bool", "no time"],
)
def test_expensive_numbers_are_errors(scalar: str) -> None:
    """PyYAML takes quadratic time for numbers to the base of 60, and raises other exceptions than ValueError."""
    with pytest.raises(yaml.MarkedYAMLError, match="cannot be read as the"):
        parse_yaml(f"[{scalar}]")


def test_repeated_keys_take_memory_once() -> None:
    """For 100,000 clients the keys would take 50 MB more. Keys that are not text are unchanged."""
    rows = parse_yaml("[{client_id: a, 1: x}, {client_id: b, 1.0: x}, {'client_id': c, true: x}]")
    assert isinstance(rows, list)
    keys = [key for row in rows for key in row]
    assert len({id(key) for key in keys[::2]}) == 1
    assert [type(key) for key in keys[1::2]] == [int, float, bool]


# ── A feature declares its sections of the settings by path, without a change of the core ────────────────────────────


class QuietSettings(Section):
    """Issuers without events for a long time."""

    after: int = 60
    """Seconds."""


class QuietOptions(Section):
    """Options of a client."""

    quiet_after: Annotated[int, Field(ge=1)] | None = None
    """Minutes."""


HERE = f"{__name__}:QuietSettings"
OPTIONS = f"{__name__}:QuietOptions"
SECTIONS = {"quiet": HERE, "api.quiet": HERE, "sources": HERE}
FEATURE = ConfiguredFeature(name="quiet", sections=SECTIONS, client_options=OPTIONS)
MODEL = settings_model([FEATURE])


def test_a_section_of_a_feature_is_read_at_its_path() -> None:
    """New in the file or in a section, in place of the core's, and for each name."""
    environ = {"NOTIFIER_QUIET__AFTER": "5", "NOTIFIER_API__QUIET__AFTER": "6"}
    read = load_settings(None, {**environ, "NOTIFIER_SOURCES": '{"shop": {"after": 8}}'}, MODEL)
    found = [read.section(path, QuietSettings) for path in ("quiet", "api.quiet")]
    found.append(read.sections("sources", QuietSettings)["shop"])
    assert [None if section is None else section.after for section in found] == [5, 6, 8]
    assert isinstance(read, Settings)
    assert load_settings(None, {}, MODEL).section("api.quiet", QuietSettings) is None


def test_error_in_a_section_of_a_feature_is_reported(tmp_path: Path) -> None:
    """As in the core; its description is in the schema."""
    path = tmp_path / "n.yaml"
    path.write_text("quiet: {aftr: 5}\nsources: {shop: {after: x}}\n")
    with pytest.raises(ConfigurationError) as caught:
        load_settings(path, {"NOTIFIER_QUIET__AFTR": "5"}, MODEL)
    paths = [mistake.path for mistake in caught.value.mistakes]
    assert paths == ["NOTIFIER_QUIET__AFTR", "sources.shop.after", "quiet.aftr"]
    schema = config_schema(MODEL)
    assert schema["properties"]["quiet"]["description"] == "Issuers without events for a long time."
    assert schema["$defs"]["QuietSettings"]["properties"]["after"]["description"] == "Seconds."


def test_section_without_its_feature_is_not_validated() -> None:
    """A command that reads only the queue reads no other section, and accepts the variables of all."""
    environ = {"NOTIFIER_WEB__KEYS_FILE": "web.keys", "NOTIFIER_API__CONSOLE__ENABLED": "false"}
    assert read_sections(None, environ, {"queue"}).settings.web is None
    with pytest.raises(ConfigurationError, match="NOTIFIER_WEBB__KEYS_FILE: there is no such setting"):
        read_sections(None, {"NOTIFIER_WEBB__KEYS_FILE": "web.keys"}, {"queue"})


def loaded(
    folder: Path, clients: str, defaults: str = "{}", features: Sequence[ConfiguredFeature] = (FEATURE,)
) -> LoadedConfiguration:
    """Read the configuration of one issuer with these clients."""
    (folder / "key.pem").write_bytes(pem("RS256"))
    (folder / "clients.yaml").write_text(clients)
    path = folder / "n.yaml"
    path.write_text(
        f"issuers: {{'{ISS}': {{keys: [{{file: key.pem}}]}}}}\n"
        f"registry: {{file: clients.yaml, defaults: {{'{ISS}': {defaults}}}}}\n"
    )
    return load(path, {}, features)


def test_a_feature_declares_members_of_a_client(tmp_path: Path) -> None:
    """They are read from the client, else from its issuer's defaults, and described in the schema."""
    rows = "- {client_id: shop, backchannel_logout_uri: 'https://shop.example', notifier: {quiet_after: 5}}\n"
    rows += "- {client_id: mail, backchannel_logout_uri: 'https://mail.example'}\n"
    for defaults, of_mail in (("{timeout: 3s}", None), ("{quiet_after: 7}", 7)):
        clients = loaded(tmp_path, rows, defaults).registry.clients[ISS]
        assert [clients[name].option("quiet_after", int) for name in ("shop", "mail")] == [5, of_mail]
    assert config_schema(MODEL)["$defs"]["ClientOptions"]["properties"]["quiet_after"]["description"] == "Minutes."


@pytest.mark.parametrize(
    ("member", "features", "text"),
    [
        ("quiet_after: 0", (FEATURE,), "notifier.quiet_after: must be greater than or equal to 1"),
        ("quiet_aftr: 5", (FEATURE,), "notifier.quiet_aftr: there is no such key; did you mean quiet_after?"),
        ("quiet_after: 5", (), "notifier.quiet_after: there is no such key"),
    ],
)
def test_error_in_a_member_of_a_feature_is_reported(
    tmp_path: Path, member: str, features: Sequence[ConfiguredFeature], text: str
) -> None:
    """As in the core. Without the feature the member is unknown."""
    rows = f"- {{client_id: shop, backchannel_logout_uri: 'https://shop.example', notifier: {{{member}}}}}"
    with pytest.raises(ConfigurationError) as caught:
        loaded(tmp_path, rows, features=features)
    assert text in str(caught.value)


def test_member_of_an_absent_feature_reports_the_feature() -> None:
    """A section declares which of its members belong to a feature."""

    class Options(Section):
        of_features: ClassVar[Mapping[str, str]] = {"quiet_after": "quiet"}

    with pytest.raises(ValidationError) as caught:
        Options.model_validate({"quiet_after": 5})
    [mistake] = explain(caught.value, Options, "clients.yaml[0].notifier")
    assert (
        str(mistake)
        == "clients.yaml[0].notifier.quiet_after: needs the feature quiet, which this notifier does not have"
    )


# ── The JSON Schema of the configuration ──────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return config_schema(SETTINGS)


def _leaves(part: dict[str, Any], definitions: dict[str, Any], path: str) -> Iterator[str]:
    """Yield the path of each value of the configuration, with `*` for a name and `[]` for an index of a list."""
    part = definitions[part["$ref"].rpartition("/")[2]] if "$ref" in part else part
    inner = [(path, each) for each in part.get("anyOf", []) + part.get("oneOf", [])]
    inner += [(f"{path}.{name}".lstrip("."), each) for name, each in part.get("properties", {}).items()]
    inner += [(f"{path}.*", each) for each in part.get("patternProperties", {}).values()]
    for more, at in ((part.get("items"), f"{path}[]"), (part.get("additionalProperties"), f"{path}.*")):
        inner += [(at, more)] if isinstance(more, dict) else []
    for at, each in inner:
        yield from _leaves(each, definitions, at)
    if not inner and part.get("type") != "null":
        yield path


class TestSchema:
    def test_schema_accepts_the_sample(self, tmp_path: Path, schema: dict[str, Any]) -> None:
        """The JSON Schema of the configuration is valid, and accepts the samples."""
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
        """The configuration has at most 216 paths that end in a value, a list of values or a mapping of values.

        The members of a client, as `registry.defaults` has them, count as one.
        """
        leaves = {re.sub(r"^(registry\.defaults)\..*", r"\1", path) for path in _leaves(schema, schema["$defs"], "")}
        paths = {re.sub(r"(\[\]|\.\*)+$", "", path) for path in leaves}
        values = [path for path in paths if not any(other.startswith((f"{path}.", f"{path}[]")) for other in paths)]
        assert len(values) <= 216
        assert "queue.prefetch.bulk" in values

    def test_refuses_a_misspelt_key(self, schema: dict[str, Any]) -> None:
        """Unknown keys are refused by the schema too."""
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft202012Validator(schema).validate({"queu": {}})


def test_reading_leaves_no_garbage() -> None:
    """The collector is off while clients are read, and what is left then is never freed: it was 5 KB a number."""
    text = "\n".join(f"- {number}" for number in range(5000))  # more than are cached
    gc.collect()
    gc.disable()
    try:
        assert parse_yaml(text) == [*range(5000)]
        assert gc.collect() < 100
    finally:
        gc.enable()
