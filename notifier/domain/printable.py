"""What came from outside, as people may see it: with nothing in it that a terminal or a page obeys instead of showing.

That is every character which Unicode does not call printable: controls (C0, C1, DEL), by which an answer or an event
would move the cursor, set a title or write over what stands there; format characters, of which the bidirectional marks
let `a\\u202egnp.exe` read otherwise than it is; line and paragraph separators.
"""

import json


def printable(text: str) -> str:
    """The text on one line, with a replacement character for whatever is not to be seen."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def printable_lines(text: str) -> str:
    """The same of a text of ours that has several lines."""
    return "\n".join(map(printable, text.split("\n")))


def json_text(document: object, *, indent: int | None = None) -> str:
    """The document as JSON that loses nothing, and shows what is not printable by its escape (`\\u202e`)."""
    text = json.dumps(document, indent=indent, ensure_ascii=False)
    if text.isprintable():
        return text
    return "\n".join(map(_escaped, text.split("\n")))


def _escaped(line: str) -> str:
    return line if line.isprintable() else "".join(char if char.isprintable() else _escape(char) for char in line)


def _escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
