"""Mutations of recorded messages: bits flipped, bytes cut out, doubled, spliced, and words put in that mean a lot."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

SAMPLES = Path(__file__).parent / "samples"
WORDS = (
    b"null", b"true", b"[]", b"{}", b'""', b"-1", b"1e999", b"NaN", b"9" * 400, b"[" * 250, b'{"a":' * 250, b"\\ud800",
    b"\\u0000", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\x00", b"*", b'"*"', b'"v":2,', b'"v":1,',
    b'"clients":"*",', b'"sub":null,', b'"id":"",', b'"specversion":"1.0",', b'"data":', b'"sid":{},',
    b"2026-01-31T12:00:00Z", b"https://", b"http://127.1/", b'"deferrals":-1,', b'"hops":[3],', b'"due":1e400,',
    b"L" * 1100,
)  # fmt: skip


def samples() -> Mapping[str, bytes]:
    """The recorded messages by their names."""
    return {path.stem: path.read_bytes() for path in sorted(SAMPLES.glob("*.json"))}


def mutated(body: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """The body after one or two mutations."""
    for _ in range(chance.randint(1, 2)):
        body = _once(body, others, chance)
    return body


def _once(body: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    start = chance.randint(0, len(body))
    end = min(len(body), start + chance.choice((1, 1, 2, 4, 16, 64)))
    before, cut, after = body[:start], body[start:end], body[end:]
    match chance.randrange(8):
        case 0 if cut:
            return before + bytes([cut[0] ^ (1 << chance.randrange(8))]) + cut[1:] + after
        case 1 if cut:
            return before + bytes([chance.randrange(256)]) + cut[1:] + after
        case 2:
            return before + after
        case 3:
            return before + cut + cut + after
        case 4:
            return before
        case 5:
            other = chance.choice(others)
            return before + other[chance.randint(0, len(other)) :]
        case 6:
            return before + chance.choice(WORDS) + after
    return before + chance.choice(WORDS) + cut + after
