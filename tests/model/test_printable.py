"""Text from outside is shown without characters that a terminal obeys."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.model.printable import json_text, printable, printable_lines, stray_character

OBEYED = (
    "\x00\x07\x08\t\n\r\x1b\x7f\x80\x85\x90\x9b\x9d"
    "\u061c\u200b\u200e\u200f\u2028\u2029\u202a\u202e\u2066\u2069\ufeff\U000e0041"
)
JSON = st.recursive(
    st.none() | st.booleans() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@pytest.mark.parametrize("char", OBEYED)
def test_a_character_that_a_terminal_obeys_is_replaced(char: str) -> None:
    """Controls, bidirectional marks and other format characters, line and paragraph separators."""
    assert printable(f"a{char}b") == "a\N{REPLACEMENT CHARACTER}b"
    assert printable_lines(f"a{char}b\nc") == ("a\nb\nc" if char == "\n" else "a\N{REPLACEMENT CHARACTER}b\nc")


def test_printable_characters_stay() -> None:
    """Names of people and clients in any script."""
    assert printable("Łukasz 山田 – شركة [bold] 🎉") == "Łukasz 山田 – شركة [bold] 🎉"


@given(JSON, st.none() | st.integers(1, 4))
def test_json_loses_nothing(document: object, indent: int | None) -> None:
    """It reads back as the same document, and every line is printable."""
    text = json_text(document, indent=indent)
    assert json.loads(text) == document
    assert all(line.isprintable() for line in text.split("\n"))


@given(st.characters(categories=["Cs"]))
def test_half_of_a_surrogate_pair_is_escaped_too(half: str) -> None:
    """UTF-8 cannot encode it."""
    assert json.loads(json_text({half: half})) == {half: half}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("shop", None),
        ("my shop", None),
        ("it's-a-shop", None),
        ("Łukasz", None),
        ("", None),
        (" shop", "begins with a blank; remove it"),
        ("shop\n", "ends with U+000A (a control character); remove it"),
        ("shop\u00a0", "ends with U+00A0 (NO-BREAK SPACE); remove it"),
        ("'shop'", "begins with the quotation mark ', as part of the value; remove it"),
        ("shop”", "ends with the quotation mark ”, as part of the value; remove it"),
        ("sh\u200bop", "holds the invisible character U+200B (ZERO WIDTH SPACE); remove it"),
        ("\ufeffshop", "holds the invisible character U+FEFF (ZERO WIDTH NO-BREAK SPACE); remove it"),
        ("sh\u00adop", "holds the invisible character U+00AD (SOFT HYPHEN); remove it"),
    ],
)
def test_what_was_copied_along_is_named(text: str, says: str | None) -> None:
    """Blanks, quotation marks and invisible characters, which an eye does not find."""
    assert stray_character(text) == says
