"""The worst events of 128 KiB that a publisher may send: costly to read, to dead-letter or to defer."""

import base64
import itertools
import json
from collections.abc import Callable, Iterator
from functools import partial

from tests.system.site import ISSUER

SIZE = 128 * 1024
NOBODY = "https://nobody.example.com"  # an issuer that is none
CJK = 0x4E00


def filled(entry: Callable[[int], str], *, iss: str = ISSUER) -> bytes:
    """An event with as many entries as there is room for."""
    begin, end = f'{{"iss":"{iss}","sub":"mallory","clients":['.encode(), b"]}"
    room = SIZE - len(begin) - len(end)
    entries: list[bytes] = []
    for index in itertools.count():
        written = entry(index).encode()
        room -= len(written) + 1
        if room < 0:
            break
        entries.append(written)
    return begin + b",".join(entries) + end


def name(index: int) -> str:
    """A short name, different for each index."""
    return chr(CJK + index % 20_000) + "x" * (index // 20_000)


WORST: dict[str, Callable[[], bytes]] = {
    "65,000 wrong entries": partial(filled, lambda _: "1"),
    "21,800 different wrong ones": partial(filled, lambda index: str(10_000 + index)),
    "43,000 empty objects": partial(filled, lambda _: "{}"),
    "43,000 empty names": partial(filled, lambda _: '""'),
    "32,000 names that do not print": partial(filled, lambda _: '"\x7f"'),
    "7,700 objects without a name": partial(filled, lambda _: '{"client_id":""}'),
    "2,800 wrong URIs": partial(filled, lambda index: f'{{"client_id":"c{index}","backchannel_logout_uri":"x"}}'),
    "nested deeply": partial(filled, lambda _: "[" * 190 + "]" * 190),
    "one entry": partial(filled, lambda index: '"' + "x" * (SIZE - 200) + '"' if index == 0 else "1" * SIZE),
    "zeros": lambda: b"\0" * SIZE,
    "many members": lambda: b"{" + b",".join(b'"x%d":1' % index for index in range(11_000)) + b"}",
    "the same member": lambda: b'{"iss":1,' + b",".join([b'"x":1'] * 20_000) + b"}",
    "20,000 names of no issuer": partial(filled, lambda index: f'"{name(index)}"', iss=NOBODY),
    "18,000 quotes of no issuer": partial(filled, lambda index: f'"{name(index)[0]}\\""', iss=NOBODY),
    "2,300 URIs of no issuer": partial(
        filled, lambda index: f'{{"client_id":"c{index}","backchannel_logout_uri":"https://c{index}.b"}}', iss=NOBODY
    ),
    "in base64": lambda: json.dumps(
        {
            "specversion": "1.0", "id": "e", "source": "/idp", "type": "t",
            "data_base64": base64.b64encode(filled(lambda _: "1")[: SIZE * 3 // 4 - 200] + b"]}").decode(),
        }
    ).encode(),
}  # fmt: skip
"""Each event, made on demand: all take a second."""


def worst(count: int) -> Iterator[bytes]:
    """So many of them, in turn."""
    return itertools.islice(itertools.cycle([make() for make in WORST.values()]), count)
