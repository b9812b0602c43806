"""YAML as we read it: what it means, and where it is wrong."""

from pathlib import Path

import pytest

from notifier.adapters.configuration.config_file import load_settings
from notifier.adapters.configuration.document_files import read_document
from notifier.domain.errors import ConfigurationError, Mistake
from tests.adapters.configuration.config_sample import write


class TestYaml:
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

    @pytest.mark.parametrize("text", ["a: &x [*x]", "a: {<<: 5}"])
    def test_what_means_nothing(self, tmp_path: Path, text: str) -> None:
        """A value that holds itself, and a merge with what is no mapping, are mistakes with their place."""
        with pytest.raises(ConfigurationError) as caught:
            read_document(write(tmp_path, text))
        assert "line 1, column" in str(caught.value)

    def test_mistakes_are_told_once(self, tmp_path: Path) -> None:
        """The text of the error is every mistake."""
        with pytest.raises(ConfigurationError) as caught:
            load_settings(write(tmp_path, "a: 1\nb: 2"), {})
        assert len(caught.value.mistakes) == 2
        assert all(isinstance(mistake, Mistake) for mistake in caught.value.mistakes)
