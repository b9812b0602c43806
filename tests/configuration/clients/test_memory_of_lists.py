"""What a list of clients takes of a worker's memory: at most 240 MiB, so that the worker takes less than 350."""

import asyncio
import gc
import time
import tracemalloc
from pathlib import Path

import pytest

from notifier.configuration.clients.client_rows import SourceAnswer
from notifier.configuration.clients.remote_rows import RowCollector
from notifier.configuration.live_configuration import RouteChanges
from notifier.model.defaults import MAX_LIST_BYTES, MAX_LIST_ROWS
from notifier.network.http.json_client import LIST_BOUNDS
from notifier.network.http.json_parts import read_json
from tests.configuration.clients.test_guard import GOOD, Source
from tests.tokens.key_folder import ISS

ROWS = MAX_LIST_ROWS // 16  # so that the tables of sets and dictionaries are as full
ROW_BYTES = MAX_LIST_BYTES // MAX_LIST_ROWS
MAX_BYTES_PER_ROW = 240 * 1024 * 1024 // MAX_LIST_ROWS


COSTLY = (  # members of rows that count three times
    '"notifier":{{"proxy":"http://{host}{nth}/"}},"jwks_uri":"https://{host}/{nth}",'
    '"id_token_encrypted_response_alg":"RSA-OAEP",'
)


def body(host: str, members: str) -> bytearray:
    """Return a list whose rows have these `members`, and are as long as they may be on average."""
    rows = [
        f'{{{{"client_id":"{{nth:x}}",{members}"backchannel_logout_uri":"https://{{host}}.ex/'.format(
            host=host, nth=nth
        )
        for nth in range(ROWS // 3 if members else ROWS)
    ]
    length = ROW_BYTES * (3 if members else 1) - 3
    return bytearray(("[" + ",".join(row.ljust(length, "p") + '"}' for row in rows) + "]").encode())


async def read(host: str, members: str, last: SourceAnswer | None) -> SourceAnswer:
    """Read the list as the source `http` does."""
    collector = RowCollector(last, unique=True)
    values = await read_json(body(host, members), LIST_BOUNDS)
    while values:
        collector.add(values.pop())
    return collector.answer(time.time())


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("cache", "members"),
    [(True, ""), (False, ""), (True, COSTLY)],
    ids=["with the times of new clients", "without a cache", "costly members"],
)
def test_a_list_at_its_bounds_takes_bounded_memory(tmp_path: Path, cache: bool, members: str) -> None:
    """At its first reading, at one without a change, and at each in which all addresses change while a release runs."""
    source, last, peaks, changes = Source(tmp_path, cache=cache), None, list[float](), RouteChanges()
    source.apply("https://warm.example", "warm")  # what the code itself needs
    gc.collect()
    gc.disable()  # as at each reading of a worker
    tracemalloc.start(1)
    try:
        for host in ("a", "a", "b", "a"):
            changes = source.live.take_route_changes()  # of the release, until its pass ends
            tracemalloc.reset_peak()
            answer = asyncio.run(read(host, members, last))
            if answer is not last:
                answer = source.live.take_answer("own", answer).answer or answer
                if last is not None:
                    last.rows.clear()  # type: ignore[attr-defined]  # as a worker does
            last = answer
            del answer
            peaks.append(tracemalloc.get_traced_memory()[1] / ROWS)
    finally:
        tracemalloc.stop()
        gc.enable()
    assert len(source.addresses) == sum(map(len, changes.moved.values())) == (ROWS // 3 if members else ROWS)
    assert max(peaks) < MAX_BYTES_PER_ROW


def test_invalid_rows_leave_no_cyclic_garbage(tmp_path: Path) -> None:
    """The collector pauses while a list is read, and what is left then is frozen: it would never be freed."""
    source = Source(tmp_path)
    options = ({"timeout": "soon"}, {"claims": {"sub": 1}}, {"retry": {"base": "x"}, "preset": "none"}, {"typ": 1})
    rows = [{"client_id": f"c{nth}", "notifier": section} for nth, section in enumerate(options)]
    rows += [{"client_id": "alg", "id_token_signed_response_alg": "none"}, {"client_id": "issuer", "issuer": GOOD}]
    gc.collect()
    gc.disable()
    try:
        source.live.take_answer("own", SourceAnswer(rows=rows, at=time.time()))
        assert gc.collect() == 0
    finally:
        gc.enable()
    assert len(source.live.registry().faults[ISS]) == 3


def test_rows_with_the_same_mistake_share_its_text(tmp_path: Path) -> None:
    """A text per row and mistake took 120 MiB of a full list, twice while the list changed."""
    source = Source(tmp_path)
    collector = RowCollector(None)
    for nth, host in enumerate("xy"):
        collector.add({"client_id": f"option {nth}", "notifier": {"timeout": "soon"}})
        collector.add({"client_id": f"issuer {nth}", "issuer": "other"})
        collector.add({"client_id": f"address {nth}", "backchannel_logout_uri": f"ftp://{host}"})
        collector.add({"client_id": f"aliases {nth}", "aliases": host})
    answer = collector.answer(time.time())
    source.live.take_answer("own", answer)
    registry, faults = source.live.registry(), source.live.current.faults
    for texts in (
        [*registry.faults[ISS].values(), *registry.refused[ISS].values()],
        [fault.text for fault in faults],
        [fault.text for fault in answer.faults],
    ):
        assert len(texts) > len(set(texts)) > 1
        assert len(set(map(id, texts))) == len(set(texts))
