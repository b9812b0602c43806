"""A file that hangs holds up no later reload."""

import asyncio
import fcntl
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from notifier.configuration.live_configuration import LiveConfiguration
from notifier.configuration.loading import load
from notifier.configuration.registry_sources import RegistrySources
from notifier.configuration.signer_watch import SignerWatch
from notifier.configuration.signing_keys import SigningKeys
from notifier.features import FEATURES
from notifier.service.watches import ReloadWatch
from notifier.settings.file_watch import HANGS
from tests.tokens.key_folder import ISS, pem

_F_SETSIG = 10  # of Linux; the module does not name it


@contextmanager
def leased(path: Path) -> Iterator[None]:
    """Make a regular file that hangs whoever opens it, as on a dead network file system."""
    path.write_text("[]")
    holder = os.open(path, os.O_RDWR)
    try:
        fcntl.fcntl(holder, _F_SETSIG, signal.SIGURG)  # which is ignored
        fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        yield
    finally:
        os.close(holder)


def reload_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "reload"]


async def test_a_new_file_that_hangs_is_named_and_blocks_no_later_reload(tmp_path: Path) -> None:
    """One thread waits for it. Its late result is not applied. A corrected configuration is."""
    path, late = tmp_path / "notifier.yaml", tmp_path / "late.yaml"
    (tmp_path / "key.pem").write_bytes(pem("ES256"))
    (tmp_path / "clients.yaml").write_text("[]")

    def write(clients: Path, grace: str) -> None:
        path.write_text(
            f"issuers: {{{ISS}: {{keys: [{{file: key.pem}}]}}}}\nregistry: {{file: {clients}, grace: {grace}}}"
        )

    write(tmp_path / "clients.yaml", "1m")
    live, lock = LiveConfiguration(path, {}, load(path, {}, FEATURES)), asyncio.Lock()
    signers = SignerWatch(live, lambda _: None, lambda *_: None)
    watch = ReloadWatch(live, lock, RegistrySources(live, lock), SigningKeys(live, lambda *_: None), signers)
    with leased(late):
        write(late, "2m")
        for _ in range(2):
            await asyncio.wait_for(watch.on_signal(), timeout=30)
            assert live.reloads.problems == (f"{late} {HANGS}",)
            assert len(reload_threads()) == 1
        [hung] = reload_threads()
        write(tmp_path / "clients.yaml", "3m")
        await asyncio.wait_for(watch.on_signal(), timeout=30)
        assert live.reloads.succeeded
        assert hung.is_alive()
    await asyncio.to_thread(hung.join, 30)
    assert (hung.is_alive(), live.registry().grace) == (False, 180.0)
