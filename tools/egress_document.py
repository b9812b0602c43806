"""Write docs/evidence/egress.md from the results of every case of tests/network/http/test_egress_table.py.

python -m tools.egress_document
"""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import reduce
from ipaddress import ip_address
from pathlib import Path

from notifier.model.outcome import HttpResponse, TransportFailure, TransportResult

DOCUMENT = Path(__file__).parents[1] / "docs/evidence/egress.md"
Row = tuple[str, str, str]
"""(tried, settings, result)"""
HEAD = """# Where requests may go

Every case that `tests/network/http/test_egress_table.py` tries, with its result. `python -m tools.egress_document`
writes this page.

The column of settings shows `egress`, and behind a bar `notifier.egress` of one client, whose members replace those
of `egress`. Workers check a URI when they read it and at every attempt, and an address at every connection. A denied
request makes a dead letter `egress_denied`, which names the setting that would allow it.

With `notifier.proxy` workers check only the host in the URI; the proxy's own rules must cover the rest.

An address in `64:ff9b::/96` (NAT64, RFC 6052) is checked as the IPv4 address in it. `64:ff9b:1::/48` leads into a
private network and needs `egress.allow`. If your network's NAT64 has another prefix, add it to `egress.deny`.
"""
LEFT_OUT = ("; to allow it, add it to egress.allow", ", which needs an egress.allow of exactly that address")


def document(sections: Iterable[tuple[str, str, list[Row]]]) -> str:
    """The whole text. A section has a title, the head of its first column and its rows."""
    return HEAD + "".join(line for title, first, rows in sections for line in _table(title, first, rows))


def _table(title: str, first: str, rows: list[Row]) -> Iterator[str]:
    """Return one section of the document. Cases with the same settings and result share a row."""
    plain = not any(settings for _, settings, _ in rows)
    yield f"\n## {title}\n\n| {first} | {'' if plain else 'settings | '}result |\n|---|{'' if plain else '---|'}---|\n"
    alike: dict[tuple[str, str], list[str]] = {}
    for tried, settings, result in rows:
        alike.setdefault((settings, _short(tried, result)), []).append(tried)
    for (settings, result), cases in alike.items():
        shown = ", ".join(f"`{tried}`" for tried in cases) if " " not in cases[0] else "; ".join(cases)
        yield f"| {shown} | {'' if plain else f'{_code(settings)} | '}{result} |\n"


def _short(tried: str, result: str) -> str:
    """Return the result without what the head of the document names."""
    with suppress(ValueError):
        result = result.replace(f"address {ip_address(tried)} is ", "").replace("denied: denied by", "denied by")
    return reduce(str.removesuffix, LEFT_OUT, result).replace("|", "&#124;")


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|") if text else "–"


def shown(wire: TransportResult | str) -> str:
    """A wire's event in words."""
    match wire:
        case HttpResponse():
            return f"answered {wire.status}"
        case TransportFailure():
            return f"{wire.reason}: {wire.text}"
        case _:
            return str(wire)


def main() -> None:
    """Try every case and write the document."""
    from tests.network.http.test_egress_table import tried  # noqa: PLC0415  it imports this module for the comparison

    DOCUMENT.write_text(document(asyncio.run(tried())), "utf-8")


if __name__ == "__main__":
    main()
