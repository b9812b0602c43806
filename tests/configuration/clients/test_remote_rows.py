"""Test the permitted content of a row of a remote registry source."""

import asyncio
import errno
import json
import os
import resource
import stat
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from notifier.configuration.clients.answers import Cache, HeldAnswers
from notifier.configuration.clients.client_rows import HeldRow, SourceAnswer, row_key
from notifier.configuration.clients.remote_rows import ListAmount, RowCollector, clean_row
from notifier.model.defaults import MAX_LIST_BYTES, MAX_LIST_ROWS
from notifier.model.errors import InputIssue, SourceFault
from notifier.model.record import copy_record
from notifier.settings.registry_settings import RegistrySettings, RegistrySourceSettings
from tests.settings.whole_settings import SOURCE_SETTINGS

HOOK = "https://shop.example.com/hook"


KEY = {"kty": "OKP", "crv": "X25519", "x": "A" * 43}
ENCRYPTED = {"client_id": "a", "backchannel_logout_uri": HOOK, "id_token_encrypted_response_alg": "ECDH-ES"}


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        ("shop", "[7]: must be the metadata of a client"),
        ({"backchannel_logout_uri": HOOK}, "[7]: has no client_id"),
        ({"client_id": ""}, "[7]: has no client_id"),
        ({"client_id": 42}, "[7]: client_id must be a text"),
        ({"client_id": "a", "backchannel_logout_uri": "/hook"}, "a: backchannel_logout_uri must be an absolute URI"),
        (
            {"client_id": "a", "backchannel_logout_uri": HOOK + "#x"},
            "a: backchannel_logout_uri must not have a fragment",
        ),
        ({"client_id": "a", "backchannel_logout_uri": [HOOK]}, "a: backchannel_logout_uri must be a text"),
        ({"client_id": "a", "backchannel_logout_url": HOOK}, "a: there is no member backchannel_logout_url; did"),
        ({"clientId": "a"}, "[7]: there is no member clientId; did you mean client_id?"),
        ({"client_id": "a", "aliases": "b"}, "a: aliases must be a list of texts"),
        ({"client_id": "a" * 1025}, "[7]: client_id must have at most 1024 characters"),
        ({"client_id": "a\x1b[31m"}, "[7]: client_id must have at most 1024 characters, and no control characters"),
        (
            {"client_id": "a", "backchannel_logout_uri": HOOK + "/" * 4096},
            "a: backchannel_logout_uri must have at most 4096 characters",
        ),
        ({"client_id": "a", "notifier": {"retry_statuses": ["\ud800"]}}, "[7]: has a text that is not valid Unicode"),
        ({"client_id": "a", "notifier": "3s"}, "a: notifier must hold"),
        (ENCRYPTED | {"jwks": {"keys": [KEY] * 101}}, "a: jwks has more than 100 keys"),
        (ENCRYPTED | {"jwks": {"keys": [KEY | {"kid": "k" * 4000}] * 17}}, "a: jwks is larger than 64 KiB"),
    ],
)
def test_a_client_that_cannot_be_used_is_a_fault_that_names_it(raw: Any, fault: str) -> None:
    """The fault has the reason, and does not affect other clients."""
    found = clean_row(raw, "[7]")
    assert isinstance(found, InputIssue)
    assert str(found).startswith(fault)


def _gathered(last: SourceAnswer | None, *raws: object, at: float) -> SourceAnswer:
    collector = RowCollector(last)
    asyncio.run(collector.add_all(raws))
    return collector.answer(at)


def test_rows_share_the_names_of_their_members() -> None:
    """A JSON parser creates each member name per row, which was half of the memory of a list."""
    raws = [json.loads(f'{{"client_id": "c{nth}", "notifier": {{"max_concurrent": 8}}}}') for nth in range(2)]
    first, second = _gathered(None, *raws, at=1.0).rows
    assert {id(name) for name in first} == {id(name) for name in second}
    sections: list[Any] = [first["notifier"], second["notifier"]]
    assert len({id(name) for section in sections for name in section}) == 1


def test_unchanged_rows_are_the_same_objects() -> None:
    """A refresh without changes returns the last answer itself, one with few changes the other rows."""
    shop, wiki = ({"client_id": name, "backchannel_logout_uri": HOOK} for name in ("shop", "wiki"))
    last = _gathered(None, shop, wiki, {"client_id": 1}, at=1.0)
    assert _gathered(last, {**shop}, {**wiki}, {"client_id": 1}, at=2.0) is last
    newer = _gathered(last, {**shop, "subject_type": "pairwise"}, {**wiki}, {"client_id": 1}, at=2.0)
    assert newer.at == 2.0
    assert newer.rows[0]["subject_type"] == "pairwise"
    assert newer.rows[1] is last.rows[1]
    assert len(_gathered(last, {**shop}, at=2.0).rows) == 1


def test_a_client_that_comes_twice_counts_once() -> None:
    """Pages may shift while they are read."""
    answer = _gathered(None, {"client_id": "shop"}, {"client_id": "wiki"}, {"client_id": "shop"}, at=1.0)
    assert [row["client_id"] for row in answer.rows] == ["shop", "wiki"]


async def test_unchanged_row_is_validated_once() -> None:
    """Also if it has ignored members: secrets, other metadata, or settings that no list may set."""
    raw = {
        "client_id": "shop", "backchannel_logout_uri": HOOK, "client_secret": "hunter2", "jwks": {"keys": []},
        "notifier": {"headers": {"a": "b"}, "typ": "JWT"},
    }  # fmt: skip
    first = RowCollector(None)
    await first.add_all([raw])
    last = first.answer(0.0)
    assert clean_row(raw, "[0]", last.rows[0]) is last.rows[0]
    again = RowCollector(last)
    await again.add_all([dict(raw)])
    assert again.answer(1.0) is last


# ── The cache of answers: used at a start while a source is unavailable; its failure has no other effect ─────────────


ROWS = [{"client_id": f"c{number}", "notifier": {"claims": {"ä": [None, 1]}}} for number in range(1200)]
ANSWER = SourceAnswer(rows=ROWS, at=time.time() - 300, faults=(InputIssue("bad", "why"),))
URL = "https://id.example.com/clients"


def kind(url: str = URL, **settings: Any) -> RegistrySourceSettings:
    """A source over HTTP."""
    section = {"url": url, "headers": {"Authorization": "Bearer hunter2"}}
    document = {"issuer": "https://id.example.com", "http": section, **settings}
    return SOURCE_SETTINGS.model_validate(document)


def test_saved_cache_is_loaded(tmp_path: Path) -> None:
    """With its age, readable by its owner only, and without the settings' secrets."""
    cache = Cache(tmp_path / "new" / "registry")
    cache.save(kind(), ANSWER)
    found = cache.load(kind(every="7s"))
    assert found is not None
    assert (found.rows, found.faults) == (ROWS, ANSWER.faults)
    assert found.at == pytest.approx(ANSWER.at, abs=0.01)
    (file,) = (tmp_path / "new" / "registry").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "hunter2" not in file.read_text()


def test_a_cache_of_the_future_is_of_now(tmp_path: Path) -> None:
    """The clock was set back since: otherwise an old list would not be reported as old before that day."""
    cache, late = Cache(tmp_path), time.time() + 86_400
    key = row_key(ROWS[0])
    cache.save(kind(), copy_record(ANSWER, at=late, since={key: late}))
    found = cache.load(kind())
    assert found is not None
    assert found.at <= time.time()
    assert found.since[key] == found.at


def test_heading_of_a_cache_has_the_members_that_earlier_releases_require(tmp_path: Path) -> None:
    """After a rollback they start from it while the source is unavailable."""
    Cache(tmp_path).save(kind(), ANSWER)
    heading = json.loads((tmp_path / "http.jsonl").read_text().split("\n", 1)[0])
    assert heading.keys() == {"v", "source", "mark", "faults", "rows"}
    assert (heading["v"], heading["mark"]) == (1, None)


def test_rows_of_a_cache_share_the_names_of_their_members(tmp_path: Path) -> None:
    """As rows of a list do: otherwise a worker that starts from the cache needs half as much memory again."""
    Cache(tmp_path).save(kind(), ANSWER)
    found = Cache(tmp_path).load(kind())
    assert found is not None
    assert len({id(name) for row in found.rows for name in row}) == len(ROWS[0])


def test_unchanged_answer_refreshes_the_age_of_the_cache(tmp_path: Path) -> None:
    """The file is not written again, even if it was deleted."""
    cache, now = Cache(tmp_path), SourceAnswer(rows=ROWS, at=time.time())
    cache.save(kind(), ANSWER)
    for deleted in (False, True):
        if deleted:
            (tmp_path / "http.jsonl").unlink()
        cache.confirm(kind(), now)
        found = cache.load(kind())
        assert found is not None
        assert found.at == pytest.approx(now.at, abs=0.01)


def _heading(file: Path, **changes: object) -> None:
    first, rest = file.read_text().split("\n", 1)
    file.write_text(json.dumps({**json.loads(first), **changes}) + "\n" + rest)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-300]), "JSONDecodeError"),
        (lambda file: file.write_text("\n".join(file.read_text().split("\n")[:-20]) + "\n"), "damaged"),
        (lambda file: file.write_bytes(b"\xff\x00" * 500), "UnicodeDecodeError"),
        (lambda file: file.write_text("[]"), "AttributeError"),
        (lambda file: _heading(file, v=2), "another release"),
        (lambda file: _heading(file, rows=3), "damaged"),
        (lambda file: _heading(file, source="else"), "settings of the source have changed"),
        (lambda file: (file.unlink(), file.mkdir()), "Is a directory"),
        (lambda file: file.chmod(0o662), "may be written to by others"),
        (
            lambda file: (file.rename(file.with_name("a")), file.symlink_to(file.with_name("a"))),
            "Too many levels of symbolic links",
        ),
    ],
)
def test_unusable_cache_is_ignored(
    tmp_path: Path, damage: Callable[[Path], object], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The log has the reason."""
    cache = Cache(tmp_path)
    cache.save(kind(), ANSWER)
    damage(tmp_path / "http.jsonl")
    held = HeldAnswers()
    assert held.load_cached(kind(), tmp_path) is None
    held.log_unusable()
    captured = capsys.readouterr()
    assert reason in captured.out + captured.err


def _link(folder: Path) -> None:
    folder.rename(folder.with_name("aside"))
    folder.symlink_to(folder.with_name("aside"))


def _of_another_group(folder: Path) -> None:
    os.chown(folder, -1, 65534)
    folder.chmod(0o770)


by_root = pytest.mark.skipif(os.geteuid() != 0, reason="root may chown")
OPEN = [
    lambda folder: folder.chmod(0o777),
    lambda folder: folder.chmod(0o1777),
    pytest.param(_of_another_group, marks=by_root),
    _link,
]
OTHERS = pytest.param(lambda folder: os.chown(folder, 65534, 65534), marks=by_root)


def test_group_access_by_fs_group_is_accepted(tmp_path: Path) -> None:
    """With `fsGroup` it does so at each start, for folders (2770) and files (0660)."""
    cache = Cache(tmp_path / "cache")
    cache.save(kind(), ANSWER)
    (tmp_path / "cache").chmod(0o2770)
    (tmp_path / "cache" / "http.jsonl").chmod(0o660)
    assert cache.load(kind()) is not None
    assert RegistrySettings(cache=tmp_path / "cache").cache
    cache.save(kind(), ANSWER)
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["http.jsonl"]


@by_root
def test_root_may_read_the_cache_of_the_service(tmp_path: Path) -> None:
    """systemd links a folder for a dynamic user. `check` accepts it; a worker of root does not."""
    service, named = 61184, tmp_path / "cache"
    made = tmp_path / "private" / "notifier"
    Cache(made).save(kind(), ANSWER)
    named.symlink_to(made.parent)
    for path in (made.parent, made, *made.iterdir()):
        os.chown(path, service, service)
    assert RegistrySettings(cache=named).cache == named
    assert Cache(named, of_owner=True).load(kind()) is not None
    assert Cache(named).load(kind()) is None
    made.chmod(0o777)
    assert Cache(named, of_owner=True).load(kind()) is None


@pytest.mark.parametrize("gave_away", [*OPEN, OTHERS])
def test_cache_in_a_writable_folder_is_not_used(tmp_path: Path, gave_away: Callable[[Path], object]) -> None:
    """Its content may come from anybody. A private folder within it is accepted, as in a volume of Kubernetes."""
    root = tmp_path / "cache"
    cache = Cache(root)
    cache.save(kind(), ANSWER)
    assert RegistrySettings(cache=root).cache == root
    gave_away(root)
    assert cache.load(kind()) is None
    cache.confirm(kind(), ANSWER)
    assert RegistrySettings(cache=root).cache == root
    own = root / "notifier"
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    assert [file.name for file in own.iterdir()] == ["http.jsonl"]
    assert Cache(root).load(kind()) is not None
    cache.forget(kind())
    assert Cache(root).load(kind()) is None


@pytest.mark.parametrize("gave_away", [OPEN[0], OPEN[1], OPEN[3]])
def test_cache_folder_of_another_owner_is_refused(
    tmp_path: Path, gave_away: Callable[[Path], object], capsys: pytest.CaptureFixture[str]
) -> None:
    """With its path and the remedy; a running worker reads nothing from it and writes nothing to it."""
    tmp_path.chmod(0o1777)
    cache, own = Cache(tmp_path), tmp_path / "notifier"
    cache.save(kind(), ANSWER)
    gave_away(own)
    with pytest.raises(
        ValidationError, match=f"cache\n.*{own} (is a link|belongs|may be).*delete it.*chmod 700.*another folder"
    ):
        RegistrySettings(cache=tmp_path)
    assert cache.load(kind()) is None
    before = (own / "http.jsonl").stat()
    cache.save(kind(), ANSWER)
    cache.forget(kind())
    assert (own / "http.jsonl").stat() == before
    captured = capsys.readouterr()
    assert "registry_cache_not_written" in captured.out + captured.err


def test_cache_of_another_source_is_not_used(tmp_path: Path) -> None:
    """Its address, its issuer or its headers have changed."""
    cache = Cache(tmp_path)
    cache.save(kind(), ANSWER)
    assert cache.load(kind(f"{URL}/others")) is None
    assert Cache(None).load(kind()) is None


@pytest.mark.parametrize("folder", ["file", "file/registry", "no-way-in"])
def test_unusable_folder_disables_only_the_cache(
    tmp_path: Path, folder: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a file, is in a file, or is not accessible. The source is read all the same."""
    (tmp_path / "file").touch()
    if folder == "no-way-in":
        monkeypatch.setattr(Path, "mkdir", _refused)
        monkeypatch.setattr(os, "open", _refused)
    cache = Cache(tmp_path / folder)
    assert cache.load(kind()) is None
    cache.save(kind(), ANSWER)
    cache.confirm(kind(), ANSWER)
    captured = capsys.readouterr()
    assert (captured.out + captured.err).count("registry_cache_not_written") == 1


def _refused(*_: object, **_names: object) -> None:
    raise PermissionError(errno.EACCES, "Permission denied")


@pytest.mark.skipif(sys.platform != "linux", reason="sets a limit of Linux")
def test_full_disk_disables_only_the_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The last cache stays complete, no temporary file remains, and the log has one line."""
    cache = Cache(tmp_path)
    cache.save(kind(), ANSWER)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        for _ in range(3):
            cache.save(kind(), SourceAnswer(rows=ROWS * 2, at=time.time()))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    found = cache.load(kind())
    assert found is not None
    assert len(found.rows) == len(ROWS)
    assert [path.name for path in tmp_path.iterdir()] == ["http.jsonl"]
    captured = capsys.readouterr()
    assert (captured.out + captured.err).count("registry_cache_not_written") == 1


def test_only_the_used_key_of_a_row_is_kept() -> None:
    """A list may have 16 MiB of keys."""
    keys = [KEY | {"kid": str(nth)} for nth in range(100)]
    row = clean_row(ENCRYPTED | {"jwks": {"keys": keys}}, "[0]")
    assert isinstance(row, dict)
    assert row["jwks"] == {"keys": [keys[0]]}
    assert clean_row(row, "[0]") == row, "as the cache gives it back"


def test_a_changed_row_shares_the_texts_that_did_not_change() -> None:
    """If all addresses of a list change, each `client_id` takes memory once. A value of another type is not equal."""
    former = HeldRow.of(
        {"client_id": "".join(["mai", "l"]), "backchannel_logout_uri": "https://a.example/", "x": 1}, {}
    )
    collector = RowCollector(SourceAnswer(rows=[former], at=time.time()))
    new = {"client_id": "".join(["ma", "il"]), "backchannel_logout_uri": "https://b.example/"}
    collector.add(new)
    (row,) = collector.answer(time.time()).rows
    assert row == new
    assert row["client_id"] is former["client_id"]
    assert HeldRow.of({"client_id": "mail", "x": True}, {}, former)["x"] is True


def test_amount_of_a_list_is_bounded() -> None:
    """In rows, in bytes of texts, and in values of lists. Unusable clients count too."""

    def refused(row: Any, times: int) -> str:
        """Return the reason why so many rows are refused. One less is not."""
        amount = ListAmount()
        for _ in range(times - 1):
            amount.add(row)
        with pytest.raises(SourceFault) as caught:
            amount.add(row)
        return str(caught.value)

    assert refused({"client_id": "a"}, MAX_LIST_ROWS + 1) == "its list has more than 200,000 rows"
    at_four = {"client_id": "a", "issuer": ["https://one.example"] * 4}  # four clients, each with its own memory
    assert refused(at_four, MAX_LIST_ROWS // 4 + 1) == "its list has more than 200,000 rows"
    heavy = {"client_id": "a", "notifier": {"timeout": 1}}
    assert refused(heavy, MAX_LIST_ROWS // 2 + 1) == "its list has more than 200,000 rows"
    assert refused(heavy | at_four, MAX_LIST_ROWS // 8 + 1) == "its list has more than 200,000 rows"
    keys = {"client_id": "a", "jwks_uri": "https://a.example/keys"}
    assert refused(keys, MAX_LIST_ROWS // 3 + 1) == "its list has more than 200,000 rows"
    aliases = {"client_id": "a", "aliases": ["b", "c", "d"]}
    assert refused(aliases, MAX_LIST_ROWS // 5 + 1) == "its list has more than 200,000 rows"
    large = {"client_id": "a" * 1024, "client_name": "b" * 15 * 1024}
    assert refused(large, MAX_LIST_BYTES // 16384 + 1) == "its list has more than 16 MiB of client metadata"
    for sign, size in (("ÿ", 1), ("€", 2), ("😀", 4)):  # which makes each character of its text as large
        mixed = {"client_id": "a", "client_name": "b" * 16383 + sign, "issuer": "c" * (16383 - 1)}
        assert refused(mixed, MAX_LIST_BYTES // (16384 * size + 16383) + 1).endswith("16 MiB of client metadata")
    assert refused(InputIssue("a" * 8192, "b" * 8192), MAX_LIST_BYTES // 16384 + 1).endswith(
        "16 MiB of client metadata"
    )
    uris = {"client_id": "a", "redirect_uris": [""] * 1025}
    assert refused(uris, 257) == "its list has more than 262,144 values in lists and objects"


@pytest.mark.parametrize(
    "row", [{"client_id": "{}", "client_name": "b" * 8192}, InputIssue("{}", "b" * 8192)], ids=["rows", "faults"]
)
async def test_reading_of_a_large_list_fails(row: Any) -> None:
    """The last answer stays in use."""
    collector = RowCollector(None)
    with pytest.raises(SourceFault, match="its list has more than 16 MiB"):
        await collector.add_all([row] * (MAX_LIST_BYTES // 8192))


def test_number_of_examined_unknown_names_is_bounded() -> None:
    """A list may have 4,000 in each row. Later rows with the same names are examined, too."""
    collector = RowCollector(None)
    collector.add({"client_id": "a", **{f"x{nth}": 1 for nth in range(49)}})
    collector.add({"client_id": "b", "backchannel_logout_url": HOOK})
    collector.add({"client_id": "c", "backchannel_logout_urx": HOOK})
    collector.add({"client_id": "d", "backchannel_logout_url": HOOK})
    answer = collector.answer(0.0)
    assert [row["client_id"] for row in answer.rows] == ["a", "c"]
    assert [fault.path for fault in answer.faults] == ["b", "d"]


def test_a_held_row_is_a_mapping() -> None:
    """It is a tuple inside, and equals the dict that it was made from."""
    members = {"client_id": "shop", "aliases": ["a"], "notifier": {"paused": True}}
    shared: dict[tuple[str, ...], tuple[str, ...]] = {}
    row, other = HeldRow.of(members, shared), HeldRow.of({**members, "client_id": "mail"}, shared)
    assert (row == members, members == row, row != members, members != row) == (True, True, False, False)
    assert (row == other, row != other, row == HeldRow.of(members, {}), row == {}) == (False, True, True, False)
    assert {**row} == {} | dict(row) == dict(row.items()) == members
    assert (row["client_id"], row.get("aliases"), row.get("issuer"), len(row)) == ("shop", ["a"], None, 3)
    assert ("notifier" in row, "shop" in row, list(row)) == (True, False, [*members])
    assert isinstance(row, Mapping)
    assert len(shared) == 1
    with pytest.raises(KeyError):
        row["issuer"]
