"""What a list of clients takes of a worker's memory: at most 240 MiB, so that the worker takes less than 350."""

import asyncio
import gc
import json
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest

from notifier.configuration.clients.client_rows import MAX_ISSUES, MAX_SHARED_TEXTS, REASON_OMITTED, SourceAnswer
from notifier.configuration.clients.remote_rows import RowCollector
from notifier.configuration.live_configuration import RouteChanges
from notifier.configuration.loading import load
from notifier.configuration.provenance import effective_clients_of
from notifier.features import FEATURES
from notifier.model.defaults import MAX_LIST_BYTES, MAX_LIST_ROWS
from notifier.model.errors import ConfigurationError, InputIssue
from notifier.network.http.json_client import LIST_BOUNDS
from notifier.network.http.json_parts import read_json
from tests.configuration.clients.test_guard import GOOD, Source
from tests.tokens.key_folder import ISS, pem

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


def test_different_mistakes_of_many_rows_take_bounded_memory(tmp_path: Path) -> None:
    """Owners of lists choose texts: one for each of 200,000 rows took 612 MiB. The first reasons are kept."""
    source, count = Source(tmp_path), MAX_SHARED_TEXTS + 500
    rows: list[dict[str, object]] = [{"client_id": f"c{nth}", "issuer": f"https://{nth}.ex"} for nth in range(count)]
    rows += [{"client_id": f"d{nth}", "notifier": {"retry": {f"x{nth}": 1}}} for nth in range(count)]
    source.live.take_answer("own", SourceAnswer(rows=rows, at=time.time()))
    loaded, registry = source.live.current, source.live.registry()
    for texts in (registry.refused[ISS], registry.faults[ISS]):
        assert len(texts) == count
        assert len({*texts.values()}) <= MAX_SHARED_TEXTS + 1
        assert [*texts.values()][-1] is REASON_OMITTED
    assert "https://0.ex" in registry.refused[ISS]["c0"]
    assert len(loaded.faults) == 2 * count
    assert effective_clients_of(loaded, loaded.layers[-1]).left_out == 2 * count


ROW_MISTAKES = {
    "unknown issuer": {"issuer": "https://{}.ex"},
    "unknown option": {"notifier": {"o{}": 1}},
    "misspelt member": {"backchannel_logout_ur": "https://{}.ex"},
    "twice": {"client_id": "same"},
    "signature": {"backchannel_logout_uri": "https://{}.ex", "id_token_signed_response_alg": "ES512"},
    "warning": {"timeout": "5s"},
}


@pytest.mark.parametrize("kind", ROW_MISTAKES)
@pytest.mark.parametrize("several", [False, True], ids=["one file", "two files"])
def test_mistakes_of_a_file_are_counted_and_the_first_are_listed(tmp_path: Path, kind: str, several: bool) -> None:
    """A text for each of 200,000 rows took 479 MiB, and a log line of 65 MB at each reload."""
    count = MAX_ISSUES + 500
    template = json.dumps(ROW_MISTAKES[kind])
    rows = [{"client_id": f"c{nth}"} | json.loads(template.replace("{}", str(nth))) for nth in range(count)]
    (tmp_path / "key.pem").write_bytes(pem("ES256"))
    (tmp_path / "one.json").write_text(json.dumps(rows))
    (tmp_path / "two.json").write_text("[]")
    sources = [{"name": name, "file": f"{name}.json"} for name in ("one", "two")[: 1 + several]]
    path = tmp_path / "notifier.json"
    path.write_text(json.dumps({"issuers": {ISS: {"keys": [{"file": "key.pem"}]}}, "registry": {"sources": sources}}))
    issues: Sequence[InputIssue]
    try:
        issues = load(path, {}, FEATURES).warnings
    except ConfigurationError as error:
        issues = error.mistakes
    assert sum(issue.count for issue in issues) == count - (kind == "twice")
    assert len(issues) == MAX_ISSUES + 1
    assert "c0" in f"{issues[0]}" or "same" in f"{issues[0]}" or "[0]" in f"{issues[0]}"
