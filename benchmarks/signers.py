"""How much of what a PKCS#11 module signs by itself the worker has of it: SoftHSM, RS256, by turns.

    python -m benchmarks.signers [RUNS]

Each turn has the C program beside it (`module_speed.c`) sign with as many threads as the worker has processes; then
`Pkcs11Key.sign` get signatures from those processes; then `KeyRing.sign` make tokens of them, which are verified. It
prints the medians of all turns. It needs gcc and libp11-kit-dev.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import uvloop

from notifier.features.key_places.key_kinds import key_kinds
from notifier.features.key_places.pkcs11_session import KeyName, TokenAddress
from notifier.features.key_places.pkcs11_token import Pkcs11Key, Pkcs11Token
from notifier.model.client import Algorithm
from notifier.settings.key_settings import SigningSettings
from notifier.tokens.key_ring import KeyElsewhere, KeyRing
from notifier.tokens.places import Places
from tests.settings.whole_settings import KEY_SETTINGS
from tests.support.softhsm import MODULE, PIN, TOKEN, SoftHsm

ISS = "https://id.example.com"
SECONDS = 2.0
WAITING = 4  # signatures that are asked for at a time by each process: a worker under load has always some
CLAIMS = {
    "iss": ISS,
    "aud": "shop",
    "iat": 1_750_000_000,
    "exp": 1_750_000_120,
    "jti": "5f7deea2-5c79-4dff-9d92-fad38feda416",
    "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
    "sub": "alice",
    "sid": "08a5019c-17e1-4977-8f42-65a12843ea02",
}


def by_itself(program: Path, processes: int) -> float:
    """Signatures a second by the C program."""
    words = [str(program), str(MODULE), TOKEN, PIN, "rsa", str(processes), str(SECONDS)]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


async def by_worker(sign: Callable[[], Awaitable[object]], processes: int) -> float:
    """Signatures or tokens a second."""
    made, stop = 0, time.perf_counter() + SECONDS

    async def ask() -> None:
        nonlocal made
        while time.perf_counter() < stop:
            await sign()
            made += 1

    began = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(WAITING * processes)))
    return made / (time.perf_counter() - began)


async def measure(hsm: SoftHsm, program: Path, processes: int, runs: int) -> str:
    """One line of the result."""
    signing = SigningSettings.model_validate({"concurrency": processes})
    placed = Places(key_kinds()).key(KEY_SETTINGS.model_validate({"pkcs11": hsm.settings("rsa")}), signing)
    ring = KeyRing({ISS: [KeyElsewhere(placed=placed, setting="")]})
    address = TokenAddress(module=MODULE, token=TOKEN, pin_file=hsm.pin_file)
    key = Pkcs11Key(Pkcs11Token(address, processes), KeyName(label="rsa", id=None))
    assert await ring.look() == []
    await key.public()
    message = b"x" * 400  # as the C program
    ways = (
        partial(key.sign, Algorithm.RS256, message),
        partial(ring.sign, ISS, Algorithm.RS256, "logout+jwt", CLAIMS),
    )
    try:
        turns = [
            (
                await asyncio.to_thread(by_itself, program, processes),
                *[await by_worker(each, processes) for each in ways],
            )
            for _ in range(runs)
        ]
    finally:
        await key.close()
        await ring.close()
    module, signatures, tokens = (statistics.median(each) for each in zip(*turns, strict=True))
    shares = [statistics.median(turn[nth] / turn[0] for turn in turns) for nth in (1, 2)]
    return (
        f"{processes} processes: the module by itself {module:,.0f}/s, signatures {signatures:,.0f}/s"
        f" (share {shares[0]:.2f}), tokens {tokens:,.0f}/s (share {shares[1]:.2f})"
    )


def main(runs: int) -> None:
    """Measure with one process and with two."""
    with tempfile.TemporaryDirectory() as folder:
        hsm = SoftHsm(Path(folder) / "hsm")
        os.environ.update(hsm.environ)
        program, source = Path(folder) / "module_speed", Path(__file__).with_name("module_speed.c")
        include = "-I/usr/include/p11-kit-1"
        subprocess.run(["gcc", "-O2", include, "-o", program, source, "-ldl", "-lpthread"], check=True)
        for processes in (1, 2):
            print(uvloop.run(measure(hsm, program, processes, runs)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
