"""A reload applies everything or nothing, and never widens access."""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from notifier.configuration.clients.client_rows import SourceAnswer
from notifier.configuration.live_configuration import LiveConfiguration
from notifier.configuration.loading import load
from notifier.configuration.signing_keys import SigningKeys
from notifier.features import FEATURES
from notifier.network.http.issuer_document import DocumentIssue
from notifier.settings.file_watch import FileWatch, watch_files
from tests.tokens.key_folder import ISS, pem


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Create a key, a token and no clients."""
    (tmp_path / "key.pem").write_bytes(pem("ES256"))
    (tmp_path / "tokens.yaml").write_text("- {name: idp, token: correct-horse, scopes: [publish]}\n")
    (tmp_path / "clients.yaml").write_text("[]")
    return tmp_path


def write(folder: Path, **sections: Any) -> Path:
    """Write the service's file with these sections."""
    path = folder / "notifier.json"
    issuers = {ISS: {"keys": [{"file": "key.pem"}]}}
    path.write_text(json.dumps({"issuers": issuers, "registry": {"file": "clients.yaml"}, **sections}))
    return path


def live(folder: Path, **sections: Any) -> LiveConfiguration:
    """Return the running configuration with these sections."""
    path = write(folder, **sections)
    return LiveConfiguration(path, {}, load(path, {}, FEATURES))


def test_internal_error_keeps_the_old_configuration(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A reload with an internal error is refused, and the log has its type, not its text."""
    path = write(folder)

    class Broken(dict[str, str]):
        def __iter__(self) -> Any:
            raise RecursionError("hush-hush")

    running = LiveConfiguration(path, Broken(), load(path, {}, FEATURES))
    before = running.current
    assert not running.reload(requested=True)
    assert running.current is before
    assert not running.reloads.succeeded
    logged = capsys.readouterr().out
    assert "RecursionError" in logged
    assert "hush-hush" not in logged


def names_a_key(folder: Path) -> Path:
    """Name a second key, which does not exist yet."""
    write(folder, issuers={ISS: {"keys": [{"file": "key.pem"}, {"file": "new.pem"}]}})
    return folder / "new.pem"


def names_a_secret(folder: Path) -> Path:
    """Name a client's file, which does not exist yet."""
    (folder / "clients.yaml").write_text("[{client_id: shop, notifier: {tls: {ca_file: new.pem}}}]")
    return folder / "new.pem"


def names_a_wrong_registry(folder: Path) -> Path:
    """Name another clients file, which exists and is invalid."""
    (folder / "new.yaml").write_text("{")
    write(folder, registry={"file": "new.yaml"})
    return folder / "new.yaml"


@pytest.mark.parametrize("name", [names_a_key, names_a_secret, names_a_wrong_registry])
async def test_files_of_a_failed_reload_are_watched(folder: Path, name: Callable[[Path], Path]) -> None:
    """After a repair of only the missing or invalid file, it is read again."""
    running = live(folder)
    watch = FileWatch(running.current.stamps, settle=0.02)
    taken = asyncio.Event()
    failed = asyncio.Event()

    async def changed() -> None:
        if await asyncio.to_thread(running.reload, requested=False):
            taken.set()
        else:
            watch.add(running.configured_files)
            failed.set()

    new = name(folder)
    task = asyncio.create_task(watch_files(watch, changed, clock=time.monotonic, interval=0.002))
    try:
        await asyncio.wait_for(failed.wait(), 60)
        new.write_bytes(pem("RS256") if new.suffix == ".pem" else b"[]")
        await asyncio.wait_for(taken.wait(), 60)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def test_a_refused_registry_is_watched(folder: Path) -> None:
    """If the new clients file is much shorter, the repair will change that file."""
    clients = [{"client_id": f"c{number}"} for number in range(10)]
    (folder / "clients.yaml").write_text(json.dumps(clients))
    running = live(folder)
    (folder / "new.yaml").write_text("[]")
    write(folder, registry={"file": "new.yaml"})
    assert not running.reload(requested=False)
    assert folder / "new.yaml" in running.configured_files


async def test_removed_issuer_is_not_read(folder: Path) -> None:
    """A reload runs in a thread, between any two steps of the watch, and must not end the worker."""
    assert isinstance(await SigningKeys(live(folder))._read("https://gone.example"), DocumentIssue)


def test_presets_without_effect_at_the_receiver_are_reported(folder: Path) -> None:
    """In one line per kind. `sub` and `sid` are sent to a receiver that ends by `sub` only."""
    rows: list[dict[str, object]] = [{"client_id": f"k{nth}", "notifier": {"preset": "keycloak"}} for nth in range(7)]
    required = {
        "backchannel_logout_uri": "https://a.example/out",
        "backchannel_logout_session_required": True,
        "id_token_signed_response_alg": "ES256",
    }
    rows += [
        {"client_id": preset, **required, "notifier": {"preset": preset}}
        for preset in ("keycloak_broker", "django_lasuite", "django_pyoidc")
    ]
    (folder / "clients.yaml").write_text(json.dumps(rows))
    first, second = load(write(folder), {}, FEATURES).warnings
    assert first.path.startswith("client 'k0', 'k1', 'k2', 'k3', 'k4' and 2 more of ")
    assert "compares sid with session_state" in first.text
    assert first.text.endswith("name the preset keycloak_broker, unless the provider sends session_state")
    assert second.path.startswith("client 'keycloak_broker' of ")
    assert "register it with backchannel_logout_session_required: false" in second.text


def test_settings_without_effect_are_accepted_and_reported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Such as the address of a page that no browser may load; each has a line, up to twenty."""
    clients = [{"client_id": f"c{number}", "frontchannel_logout_uri": "http://a.example/out"} for number in range(25)]
    (folder / "clients.yaml").write_text(json.dumps([{"client_id": "plain"}, *clients]))
    path = write(folder)
    loaded = load(path, {}, FEATURES)
    assert loaded.warnings[0].path == "clients.yaml[1].frontchannel_logout_uri"
    assert loaded.warnings[0].text.startswith("of client c0 is not used")
    assert LiveConfiguration(path, {}, loaded).reload(requested=True)
    lines = capsys.readouterr().out.splitlines()
    assert sum("configuration_warning " in line for line in lines) == 20
    assert any("configuration_warnings" in line and "more=5" in line for line in lines)


def test_client_rejected_again_is_reported_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Once per occurrence, independent of other clients."""
    running = live(folder, registry={"sources": [{"name": "own", "http": {"url": "https://id.example.com/list"}}]})
    for wrong, others in ((True, 0), (True, 1), (False, 1), (True, 1), (True, 2)):
        rows: list[Mapping[str, object]] = [{"client_id": f"c{nth}"} for nth in range(others)]
        rows.append({"client_id": "shop", "notifier": {"timeout": 5 if wrong else "5s"}, "subject_type": "public"})
        last: Sequence[Mapping[str, object]] = running.current.layers[0].rows
        kept = [next((old for old in last if old == row), row) for row in rows]
        running.take_answer("own", SourceAnswer(rows=kept, at=time.time()))
    captured = capsys.readouterr()
    assert (captured.out + captured.err).count("client_left_out") == 2


def test_failed_reload_is_reported_once_until_it_is_over(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same error is not repeated, unless requested; another error is reported; a successful reload ends it."""
    running = live(folder)
    (folder / "clients.yaml").write_text("{")
    for asked in (False, False, True):
        assert not running.reload(requested=asked)
    assert capsys.readouterr().out.count("reload_failed") == 2
    [trouble] = running.reloads.troubles()
    assert (trouble.kind, "clients.yaml" in trouble.text) == ("reload_failed", True)
    (folder / "clients.yaml").write_text("7")
    running.reload(requested=False)
    assert capsys.readouterr().out.count("reload_failed") == 1
    (folder / "clients.yaml").write_text("[]")
    assert running.reload(requested=True)
    assert (list(running.reloads.troubles()), running.reloads.succeeded) == ([], True)


def test_restart_is_needed_until_the_setting_is_restored(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The comparison uses the settings at start, not the last read."""
    running = live(folder, shutdown_grace="20s")
    write(folder, shutdown_grace="30s")
    for _ in range(2):
        assert running.reload(requested=False)
    assert capsys.readouterr().out.count("reload_needs_restart") == 1
    [trouble] = running.reloads.troubles()
    assert (trouble.kind, "shutdown_grace" in trouble.text) == ("restart_needed", True)
    assert running.reloads.restart_needed
    write(folder, shutdown_grace="20s")
    assert running.reload(requested=False)
    logged = capsys.readouterr().out
    assert ("reload_needs_restart" in logged, "restart_no_longer_needed" in logged) == (False, True)
    assert list(running.reloads.troubles()) == []


def test_client_that_loses_its_address_is_reported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By a reload and by an answer of a source, once per occurrence, until it is restored."""
    row = {
        "client_id": "shop",
        "backchannel_logout_uri": "https://shop.example/out",
        "id_token_signed_response_alg": "ES256",
    }
    none, other = {"client_id": "shop"}, {**row, "client_id": "mail"}
    running = live(folder)
    reads = [[row, other], [none, other], [none, other], [row, other], [other]]
    for rows, lost in zip(reads, (0, 1, 1, 0, 1), strict=True):
        (folder / "clients.yaml").write_text(json.dumps(rows))
        assert running.reload(requested=True)
        assert len(running.registry().lost_at.get(ISS, ())) == lost
    captured = capsys.readouterr()
    lines = [line for line in (captured.out + captured.err).splitlines() if "client_address_lost" in line]
    assert ["is registered without an address now" in line for line in lines] == [True, False]
    assert ["left the registry" in line for line in lines] == [False, True]
    assert all("client_id=shop" in line and "warning" in line for line in lines)

    running = live(folder, registry={"sources": [{"name": "own", "http": {"url": "https://id.example.com/list"}}]})
    for rows, lost in zip(reads, (0, 1, 1, 0, 1), strict=True):
        running.take_answer("own", SourceAnswer(rows=rows, at=time.time()))
        assert len(running.registry().lost_at.get(ISS, ())) == lost
    captured = capsys.readouterr()
    assert (captured.out + captured.err).count("client_address_lost") == 2


def test_follower_that_leaves_the_files_is_kept_for_the_grace(folder: Path) -> None:
    """Events name its leader, which must not hide the loss. After the grace it is dropped without a reload."""
    uri = "https://shop.example/out"
    shop = {"client_id": "shop", "backchannel_logout_uri": uri, "id_token_signed_response_alg": "ES256"}
    shop_us = {"client_id": "shop-us", "backchannel_logout_uri": uri, "notifier": {"follows": "shop"}}
    (folder / "clients.yaml").write_text(json.dumps([shop, shop_us]))
    running = live(folder)
    (folder / "clients.yaml").write_text(json.dumps([shop]))
    assert running.reload(requested=True)
    for later, kept in (0, True), (300, False):
        running.drop_former_followers(time.monotonic() + later)
        assert (ISS in running.registry().followers) is kept


def test_replaced_configuration_is_freed(folder: Path) -> None:
    """The first one, too: its clients and their rows take memory."""
    running = live(folder)
    for _ in range(2):
        replaced = running.current
        assert running.reload(requested=True)
        assert sys.getrefcount(replaced) <= 2  # `replaced`, and the argument of this call
