"""Writes docs/egress.md from what comes of every case of tests/adapters/http/test_egress_table.py.

python -m tools.egress_document
"""

import asyncio
from collections.abc import Iterable, Iterator
from pathlib import Path

from notifier.domain.outcome import Answer, Break, Wire

DOCUMENT = Path(__file__).parents[1] / "docs/egress.md"
Row = tuple[str, str, str]
"""(tried, settings, result)"""
HEAD = """# Where requests may go

Every case that the tests try, and what comes of it. `python -m tools.egress_document` writes this file, and
`tests/adapters/http/test_egress_table.py` fails when it says something else.

The settings are those of `egress`, and after a bar those of `notifier.egress` of one client, which replace the former
member by member. A URI is judged when it is read and at every attempt, and the address that is really connected to
each time a connection is made. What is denied is a dead letter `egress_denied` with the text given here.

With `notifier.proxy` the proxy looks names up and connects, so no address can be judged here: of the URI only what its
host means by itself is (an address in any spelling, `localhost`, a cloud's metadata). What else may be reached is for
the rules of the proxy to say. The proxy's own address is the operator's choice and is not judged.

A network whose NAT64 has a prefix of its own, other than `64:ff9b::/96` and `64:ff9b:1::/48`, should put that prefix
into `egress.deny`: an address under it looks like any public one.
"""


def document(sections: Iterable[tuple[str, str, list[Row]]]) -> str:
    """The whole text. A section has a title, the head of its first column and its rows."""
    return HEAD + "".join(line for title, first, rows in sections for line in _table(title, first, rows))


def _table(title: str, first: str, rows: list[Row]) -> Iterator[str]:
    """One section of the document."""
    yield f"\n## {title}\n\n| {first} | settings | result |\n|---|---|---|\n"
    for tried, settings, result in rows:
        shown = f"`{tried}`" if " " not in tried else tried
        yield f"| {shown} | {_code(settings)} | {result.replace('|', '&#124;')} |\n"


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|") if text else "–"


def shown(wire: Wire | str) -> str:
    """A wire's event in words."""
    match wire:
        case Answer():
            return f"answered {wire.status}"
        case Break():
            return f"{wire.reason}: {wire.text}"
        case _:
            return str(wire)


def main() -> None:
    """Try every case and write the document."""
    from tests.adapters.http.test_egress_table import tried  # noqa: PLC0415  it imports this module for the comparison

    DOCUMENT.write_text(document(asyncio.run(tried())), "utf-8")


if __name__ == "__main__":
    main()
