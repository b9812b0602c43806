"""Writes docs/evidence/egress.md from what comes of every case of tests/network/http/test_egress_table.py.

python -m tools.egress_document
"""

import asyncio
from collections.abc import Iterable, Iterator
from pathlib import Path

from notifier.model.outcome import Answer, Break, Wire

DOCUMENT = Path(__file__).parents[1] / "docs/evidence/egress.md"
Row = tuple[str, str, str]
"""(tried, settings, result)"""
HEAD = """# Where requests may go

This page lists every case that the tests try, and its result. `python -m tools.egress_document` writes it, and
`tests/network/http/test_egress_table.py` fails if it is out of date.

The settings are those of `egress`. After a bar follow those of `notifier.egress` of one client, which replace the
former member by member. Workers judge a URI when they read it and at every attempt. They judge an address whenever
they connect to it. A denied request makes a dead letter `egress_denied` with the text given here.

With `notifier.proxy` the proxy looks names up and connects. So workers can judge only what the host in the URI means
by itself: an address in any spelling, `localhost`, a cloud's metadata. The proxy's own rules must cover the rest. The
address of the proxy itself is the operator's choice and is not judged.

An address of the well-known prefix of NAT64, `64:ff9b::/96` (RFC 6052), is judged as the IPv4 address in it.
The local prefix `64:ff9b:1::/48` leads into a private network and needs `egress.allow`. If your network's NAT64 has
another prefix, put that into `egress.deny`: an address under it looks like any public one.
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
    from tests.network.http.test_egress_table import tried  # noqa: PLC0415  it imports this module for the comparison

    DOCUMENT.write_text(document(asyncio.run(tried())), "utf-8")


if __name__ == "__main__":
    main()
