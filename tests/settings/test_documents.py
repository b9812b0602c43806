"""YAML as we read it: what it means, and where it is wrong."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from notifier.model.errors import ConfigurationError
from notifier.settings.document_files import _resolve_short, parse_yaml, read_document
from tests.settings.config_sample import write

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
        """Anchors, aliases and merged mappings mean what they mean in YAML; own members win over merged ones."""
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

    @given(VALUES)
    @settings(max_examples=60, derandomize=True)
    def test_what_was_written_is_read(self, value: object) -> None:
        """Whatever a program writes as YAML is read as the same value, of the same types."""
        for style in (None, False):
            assert repr(parse_yaml(yaml.safe_dump(value, default_flow_style=style, sort_keys=False))) == repr(value)

    @pytest.mark.parametrize("text", ["a: &x [*x]", "a: {<<: 5}"])
    def test_what_means_nothing(self, tmp_path: Path, text: str) -> None:
        """A value that holds itself, and a merge with what is no mapping, are mistakes with their place."""
        with pytest.raises(ConfigurationError) as caught:
            read_document(write(tmp_path, text))
        assert "line 1, column" in str(caught.value)


@pytest.mark.parametrize(
    "scalar",
    ["1" + ":1" * 100, "1" + ":1" * 1000 + ".5", "!!int 1" + ":1" * 100, "!!bool x", "!!timestamp x"],
    ids=["base 60", "base 60, too large", "tagged", "no bool", "no time"],
)
def test_what_is_no_number_in_reasonable_time_is_a_mistake(scalar: str) -> None:
    """PyYAML takes quadratic time for a number to the base of 60, and raises what is no ValueError for others."""
    with pytest.raises(yaml.MarkedYAMLError, match="cannot be read as the"):
        parse_yaml(f"[{scalar}]")


def test_a_key_that_comes_again_takes_memory_once() -> None:
    """For 100,000 clients their keys would take 50 MB beside the values that stay. What is no text stays what it is."""
    rows = parse_yaml("[{client_id: a, 1: x}, {client_id: b, 1.0: x}, {'client_id': c, true: x}]")
    assert isinstance(rows, list)
    keys = [key for row in rows for key in row]
    assert len({id(key) for key in keys[::2]}) == 1
    assert [type(key) for key in keys[1::2]] == [int, float, bool]
