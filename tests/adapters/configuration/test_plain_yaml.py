"""The short way through long lists: it means what libyaml means, or is not taken."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from notifier.adapters.configuration.document_files import parse_plain, parse_yaml, read_document
from notifier.domain.errors import ConfigurationError
from tests.adapters.configuration.config_sample import CLIENTS, write
from tests.benchmarks.starting import write_registry

TAKEN = {
    "the sample": CLIENTS.lstrip(),
    "comments, blank lines, no newline at the end": "# all\n\n- a: 1  # one\n\n  # two\n  b: x#y",
    "one document, marked": "---\n- a: 1\n",
    "plain scalars": "- a: yes\n  b: ~\n  c: 0x10\n  d: 1.5\n  e: 2026-01-02\n  f: x y  z\n  g: a:b\n  h: http://x/?y#z\n",
    "quoted scalars": "- a: 'no'\n  b: \"a: b # c\"\n  c: ''\n- \"1\"\n- '#'\n",
    "lists below keys": "- a:\n  - 1\n  - b: 2\n    c: 3\n  d:\n    - x\n    -\n      - y\n  e:\n- f\n",
    "mappings below keys": "- a:\n    b:\n      c: 1\n    d: 2\n  e: 3\n-   f: 4\n    g: 5\n",
    "values in brackets": "- a: {x: [1, 'two'], <<: {y: yes}}  # c\n  b: []\n- {c: 1}\n",
    "not ASCII": "- a: Grüße, 世界 😀\n  b: 'é'\n",
}
LEFT = {
    "no list": "a: 1\n",
    "nothing": "# nothing\n",
    "a key twice": "- a: 1\n  a: 2\n",
    "a key that is no text": "- yes: 1\n",
    "a second document": "- a\n---\n- b\n",
    "anchors": "- &x a\n- *x\n",
    "a merge": "- a: &x {b: 1}\n- <<: *x\n",
    "a tag": "- !!str 5\n",
    "an escape": '- "\\n"\n',
    "a block of text": "- a: |\n    text\n",
    "two lines of text": "- a: one\n    two\n",
    "a list that is text": "- a: one\n    - two\n",
    "a colon too many": "- a: b: c\n",
    "another indentation": "- a: 1\n   b: 2\n",
    "less indentation": "- a:\n      b: 1\n    c: 2\n",
    "a tab": "- a:\t1\n",
    "a carriage return": "- a: 1\r\n- b: 2\n",
    "another end of a line": "- a: one\u2028two\n",
    "a date that is none": "- a: 2026-13-45\n",
    "brackets that stay open": "- a: [1,\n  2]\n",
    "a mapping as a key": "- {a: 1}: 2\n",
}

SCALARS = "v|1|yes|~|x y|a:b|a#b|'q'|\"q\" # c|2026-01-02|é|😀|1:30|0o7|1e3|-1|[x]|{a: 1} # c"
WRONG = "a: b|a::b|a :b|a #b|x:|# c|\"q\"#c|'it''s'|\"\\n\"|2026-13-45|?|%|`|@|,|[x]: y|{a: 1|{a: 1}: 2|{a: 1, a: 2}"
FURTHER = "&x 1|*x|!t|>|- |...|---|=|<<|\u2028|\t|\x85|\ufeff|x\r|\xa0x"
ODD_LINES = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", " ", "  ", "    ", "      "]),
        st.sampled_from(["", "", "- ", "-", "-  ", "- - "]),
        st.sampled_from(["", "a: ", "c:", "key:  ", "on: ", "1: ", "'q': ", "a b: ", "a:b"]),
        st.sampled_from(["", *f"{SCALARS}|{WRONG}|{FURTHER}".split("|")]),
    ),
)
WORDS = st.sampled_from(["a", "b", "c", "on", "x y", "", "1", "https://x/?y#z"])
VALUES = st.recursive(
    WORDS | st.sampled_from([1, 1.5, True, None]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def texts(draw: st.DrawFn) -> str:
    """What a program has written, and often with a line that somebody has put in or changed."""
    rows = draw(st.lists(VALUES, min_size=1, max_size=3))
    lines = yaml.safe_dump(rows, default_flow_style=draw(st.sampled_from([None, False]))).splitlines()
    at = draw(st.integers(0, len(lines)))
    lines[at : at + draw(st.integers(0, 1))] = draw(st.lists(ODD_LINES, max_size=1))
    return "\n".join(lines) + draw(st.sampled_from(["", "\n"]))


@pytest.mark.parametrize("text", TAKEN.values(), ids=TAKEN.keys())
def test_what_programs_write_is_read_so(text: str) -> None:
    """The values are those of libyaml, of the same types."""
    found = parse_plain(text)
    assert found is not None
    assert repr(found) == repr(parse_yaml(text))


@pytest.mark.parametrize("text", LEFT.values(), ids=LEFT.keys())
def test_all_else_is_left_to_libyaml(text: str) -> None:
    """Whether it means something more or is wrong."""
    assert parse_plain(text) is None


@given(texts())
@settings(max_examples=500, deadline=None, derandomize=True)
def test_the_short_way_means_the_same(text: str) -> None:
    """Where it is taken, libyaml reads the text too, and reads the same."""
    found = parse_plain(text)
    if found is not None:
        assert repr(found) == repr(parse_yaml(text))


def test_long_lists_are_read_so_across_pieces(tmp_path: Path) -> None:
    """A file of many pieces, and the kind of file that is measured."""
    write_registry(tmp_path / "clients.yaml", 2_000, "yaml")
    text = (tmp_path / "clients.yaml").read_text()
    found = parse_plain(text)
    assert found is not None
    assert found == parse_yaml(text)
    assert len(found) == 2_000


def test_what_other_programs_write_is_read_so() -> None:
    """PyYAML's own dump, with lists at the height of their keys."""
    rows = [{"client_id": "a", "redirect_uris": ["https://a/x", "https://a/y"], "notifier": {"retry": {"base": "2s"}}}]
    for text in (yaml.safe_dump(rows), yaml.safe_dump(rows, default_flow_style=None)):
        assert parse_plain(text) == rows


def test_a_mistake_far_down_has_its_place(tmp_path: Path) -> None:
    """libyaml is asked for the whole text, so that the line is that of the file."""
    rows = "".join(f"- client_id: c{number}\n" for number in range(3_000))
    with pytest.raises(ConfigurationError) as caught:
        read_document(write(tmp_path, f"{rows}  client_id: again\n"))
    assert "line 3001, column 3" in str(caught.value)
    assert "'client_id' is there twice" in str(caught.value)
