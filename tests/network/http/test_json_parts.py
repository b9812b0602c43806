"""JSON that others wrote: read in parts, within bounds, and the same as `json.loads` has it."""

import asyncio
import json
from typing import Any

import pytest

from notifier.network.http.json_parts import MEMBERS, NESTING, PART, Bounds, NotJson, OutOfBounds, read_json

MIB = 1024 * 1024
BOUNDS = Bounds(answer=64 * MIB)
SMALL = Bounds(answer=64 * MIB, member=128)  # windows so small that each sign is cut somewhere


async def turns_of(text: str) -> int:
    """How often something else runs while the text is read."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    beside = asyncio.create_task(others())
    await read_json(text.encode(), BOUNDS)
    beside.cancel()
    return turns


@pytest.mark.parametrize(
    "text",
    ["[" + ",".join(["1"] * 20_000) + "]", "{" + ",".join(f'"{n}":1' for n in range(20_000)) + "}"],
    ids=["list", "object"],
)
async def test_others_run_after_each_thousand_members(text: str) -> None:
    """However tiny these are: 20,000 fit into one window."""
    assert len(text) < PART
    assert await turns_of(text) >= 20_000 / MEMBERS


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    "value",
    [
        [], {}, [[]], [{}], "x", 1, True, [1, 2.5e10, -0.125e-3, None, 'a\\"b', "ü\U0001f600", {"a": [1, {"b": "]"}]}],
        {"total": 3, "clients": [{"client_id": "a"}, {"client_id": "b", "x": ["{", "\\"]}], "n": {"m": [1]}},
        {"clients": [], "more": None}, [12345678901234] * 40, [1.5e-7] * 40, ["x" * 40] * 9,
        [[1, 2], {"a": "\\\\"}] * 9,
    ],
)  # fmt: skip
@pytest.mark.parametrize("indent", [None, 3])
async def test_a_document_means_what_it_means_to_json(value: Any, indent: int | None) -> None:
    """Wherever a window ends: within a number, a text, an escape, between members."""
    text = json.dumps(value, indent=indent) + "\n"
    for pad in range(64):
        assert await read_json((" " * pad + text).encode(), SMALL) == value
    assert await read_json(b"\xef\xbb\xbf" + text.encode(), BOUNDS) == value


@pytest.mark.parametrize(
    "text",
    [
        "<html>", "[", "[1", "[1,", "[1,]", "[1 2]", '{"a"}', '{"a":}', '{"a":1,}', "{1:2}", "[] []", '["\\',
        '["' + "x" * 999, "[" * 100_000, '[{"a":' * 50_000, "[" + "1" * 999, '["a' + "\\" * 999, "[" + "-" * 999, "tru",
        '{"a":[1}',
    ],
    ids=lambda text: text[:12],
)  # fmt: skip
@pytest.mark.parametrize("bounds", [SMALL, BOUNDS], ids=["in small windows", "in large ones"])
async def test_what_is_no_json_is_said(text: str, bounds: Bounds) -> None:
    """However deep or long it is."""
    with pytest.raises(NotJson, match=r"^is not JSON$"):
        await read_json(text.encode(), bounds)
    with pytest.raises(NotJson):
        await read_json(b"[\xe4]", bounds)
    with pytest.raises(NotJson):
        await read_json(f'[{{"a":tru}},"{"x" * 500}", {"[]," * PART}1]'.encode(), bounds)


@pytest.mark.parametrize(
    ("member", "said"),
    [
        (json.dumps("x" * PART), "is larger than 256 KiB"),
        (json.dumps({"a": ['"\\' * 9] * (PART // 8)}), "is larger than 256 KiB"),
        ('{"a": "' + '\\"' * PART + '"}', "is larger than 256 KiB"),
        (nested(NESTING + 1), f"is nested more than {NESTING} deep"),
        ('{"a":' * 300 + "1" + "}" * 300, f"is nested more than {NESTING} deep"),
        (nested(100_000), f"is nested more than {NESTING} deep"),
        (nested(2 * PART), f"is nested more than {NESTING} deep"),
        ('{"a":' + "9" * 5000 + "}", "has a number that is too long"),
    ],
    ids=["a text", "many values", "escapes", "deep", "deep objects", "deeper", "deepest", "a number"],
)
async def test_a_member_beyond_a_bound_costs_only_itself(member: str, said: str) -> None:
    """Who may write one client must not take all others out of the list."""
    for text in (f'[{{"client_id":"a"}},{member},"b"]', f'{{"clients":[{{"client_id":"a"}}, {member} ,"b"]}}'):
        found = await read_json(text.encode(), BOUNDS)
        members = found["clients"] if isinstance(found, dict) else found
        assert members == [{"client_id": "a"}, OutOfBounds(said), "b"]
    with pytest.raises(ValueError, match=f"^has a member that {said}$"):
        await read_json(f'{{"clients":[],"more":{{"x":{member}}}}}'.encode(), BOUNDS)


async def test_as_deep_as_a_member_may_be() -> None:
    """Many lists beside one another are not deep."""
    for member in (nested(NESTING), "[" + "[]," * 1000 + "[]]", json.dumps("[" * 1000)):
        assert await read_json(f"[{member}]".encode(), BOUNDS) == [json.loads(member)]


@pytest.mark.parametrize(
    "part", ["[],", '{"a":1},', '{"client_id":"a","backchannel_logout_uri":"https://a.example/"},', "1,"]
)
async def test_an_answer_has_a_value_for_every_16_bytes_at_most(part: str) -> None:
    """Values take far more memory than their text: `[],` takes 64 bytes."""
    bounds = Bounds(answer=MIB)
    text = "[" + part * (MIB // len(part) - 1) + "[]]"
    if "client_id" not in part:
        with pytest.raises(ValueError, match="has more than 65536 values"):
            await read_json(text.encode(), bounds)
    else:
        assert len(await read_json(text.encode(), bounds)) == text.count("client_id") + 1


async def test_what_is_left_out_has_a_bound_of_its_own() -> None:
    """To find its end takes longer than to read it."""
    with pytest.raises(ValueError, match="of more than 16 MiB in all"):
        await read_json(("[" + f'"{"x" * MIB}",' * 18 + "1]").encode(), BOUNDS)


@pytest.mark.parametrize(
    "text", ["[" + '{"client_id":"shop"},' * 100_000 + "1]", "[" + nested(2 * PART) + "]"], ids=["a list", "deep"]
)
async def test_the_event_loop_has_its_turn_after_each_part(text: str) -> None:
    """Whoever asks for `/livez` meanwhile is answered."""
    assert await turns_of(text) >= len(text) // PART - 1
