"""The worst events of 128 KiB that a publisher may send: costly to read, to dead-letter or to defer."""

import base64
import itertools
import json
from collections.abc import Callable, Iterator

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


WORST: dict[str, bytes] = {
    "65,000 wrong entries": filled(lambda _: "1"),
    "21,800 different wrong ones": filled(lambda index: str(10_000 + index)),
    "43,000 empty objects": filled(lambda _: "{}"),
    "43,000 empty names": filled(lambda _: '""'),
    "32,000 names that do not print": filled(lambda _: '"\x7f"'),
    "7,700 objects without a name": filled(lambda _: '{"client_id":""}'),
    "2,800 wrong URIs": filled(lambda index: f'{{"client_id":"c{index}","backchannel_logout_uri":"x"}}'),
    "nested deeply": filled(lambda _: "[" * 190 + "]" * 190),
    "one entry": filled(lambda index: '"' + "x" * (SIZE - 200) + '"' if index == 0 else "1" * SIZE),
    "zeros": b"\0" * SIZE,
    "many members": b"{" + b",".join(b'"x%d":1' % index for index in range(11_000)) + b"}",
    "the same member": b'{"iss":1,' + b",".join([b'"x":1'] * 20_000) + b"}",
    "20,000 names of no issuer": filled(lambda index: f'"{name(index)}"', iss=NOBODY),
    "18,000 quotes of no issuer": filled(lambda index: f'"{name(index)[0]}\\""', iss=NOBODY),
    "2,300 URIs of no issuer": filled(
        lambda index: f'{{"client_id":"c{index}","backchannel_logout_uri":"https://c{index}.b"}}', iss=NOBODY
    ),
    "in base64": json.dumps(
        {
            "specversion": "1.0", "id": "e", "source": "/idp", "type": "t",
            "data_base64": base64.b64encode(filled(lambda _: "1")[: SIZE * 3 // 4 - 200] + b"]}").decode(),
        }
    ).encode(),
}  # fmt: skip


def worst(count: int) -> Iterator[bytes]:
    """So many of them, in turn."""
    return itertools.islice(itertools.cycle(WORST.values()), count)
