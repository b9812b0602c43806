"""Makes text from outside safe to display: without characters that a terminal or a page interprets.

These are all characters that are not printable according to Unicode. Controls (C0, C1, DEL) move the cursor, set a
title or overwrite text. Format characters include the bidirectional marks, which disguise names: `a\\u202egnp.exe`.
Line and paragraph separators break lines.
"""

import json
import unicodedata

EXCERPT_LENGTH = 100


def visible(text: str) -> str:
    """Return the text in one line, without invisible characters, which could separate the parts of a secret."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " if char.isspace() else "" for char in text)


def printable(text: str) -> str:
    """Return the text with a replacement character (U+FFFD) for each character that is not printable."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def excerpt(text: str, length: int = EXCERPT_LENGTH) -> str:
    """Return the printable text, cut to `length` characters, for use in an error text."""
    return printable(text if len(text) <= length else text[: length - 1] + "…")


_QUOTES = frozenset("\"'`´‘’‚‛“”„‟«»‹›")


def stray_character(text: str) -> str | None:
    """Return the problem and remedy for a character that copying added to an identifier or URI; None if there is none.

    It is a blank or quotation mark at an end, or an invisible character. No other part of the text is quoted.
    """
    for edge, where in ((text[:1], "begins"), (text[-1:], "ends")):
        if edge.isspace():
            return f"{where} with {name_character(edge)}; remove it"
        if edge in _QUOTES:
            return f"{where} with the quotation mark {edge}, as part of the value; remove it"
    invisible = next((char for char in text if not char.isprintable()), None)
    return None if invisible is None else f"holds the invisible character {name_character(invisible)}; remove it"


def name_character(char: str) -> str:
    """Return the number and name of the character."""
    return "a blank" if char == " " else f"U+{ord(char):04X} ({unicodedata.name(char, 'a control character')})"


def printable_lines(text: str) -> str:
    """Return the text with a replacement character for each unprintable character except line breaks."""
    return "\n".join(map(printable, text.split("\n")))


def counted(count: int, noun: str) -> str:
    """Return the number with its noun: `1 client`, `2,000 clients`, `2 deliveries`."""
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun[:-1]}ies" if noun.endswith("ry") else f"{count:,} {noun}s"


def json_text(document: object, *, indent: int | None = None) -> str:
    """Return the document as JSON. Unprintable characters appear as escapes (`\\u202e`), so nothing is lost."""
    text = json.dumps(document, indent=indent, ensure_ascii=False)
    return text if text.isprintable() else "\n".join(map(escape, text.split("\n")))


def escape(line: str) -> str:
    """Return a line of JSON with escapes for characters that are not printable."""
    return line if line.isprintable() else "".join(char if char.isprintable() else _escape(char) for char in line)


def _escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
