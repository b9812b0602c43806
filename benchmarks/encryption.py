"""What it costs to encrypt a logout token, beside its signature: microseconds of processor time, all of one run.

    python -m benchmarks.encryption

A client without encryption pays for the signature alone.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from notifier.model.client import Algorithm, Client, ClientKeysPlace, ContentEncryption, Encryption, KeyManagement
from notifier.network.http.issuer_document import UnreadDocument
from notifier.tokens.client_encryption import ClientEncryption
from tests.tokens.encryption_keys import keys, made, public
from tests.tokens.key_folder import ISS, Folder

ROUNDS, TIMES = 60, 20
CLAIMS = {
    "iss": ISS, "aud": "shop", "iat": 1_795_164_889, "exp": 1_795_165_009, "jti": "37bdcda8-f204-46ca-be3d",
    "events": {"http://schemas.openid.net/event/backchannel-logout": {}}, "sub": "248289761001", "sid": "08a5019c",
}  # fmt: skip
SHOP = Client(iss=ISS, client_id="shop", backchannel_logout_uri="https://shop.example/bc")
ENCS = (ContentEncryption.A128CBC_HS256, ContentEncryption.A256GCM)


Make = Callable[[], Awaitable[str]]


async def forms(folder: Path) -> dict[str, Make]:
    """What is measured, by name."""
    files = Folder(folder)
    ring = files.ring(files.source("RS256"), files.source("ES256"))
    encrypter = ClientEncryption(_nowhere, time.monotonic)
    token = await ring.sign(ISS, Algorithm.RS256, "logout+jwt", CLAIMS)
    found: dict[str, Make] = {
        f"sign {alg}": partial(ring.sign, ISS, alg, "logout+jwt", CLAIMS) for alg in (Algorithm.RS256, Algorithm.ES256)
    }
    for management, enc in product(KeyManagement, ENCS):
        for kind in ("RSA",) if management.startswith("RSA") else ("P-256", "X25519"):
            asked = Encryption(alg=management, enc=enc, keys=keys(public(made(kind), kid="e1", use="enc")))
            found[f"{management} {enc} {kind}"] = partial(encrypter.encrypt, SHOP, asked, token)
    return found


async def measure(folder: Path) -> dict[str, tuple[float, int]]:
    """Microseconds and length of each: the least of many short rounds in which all take turns."""
    made_by = await forms(folder)
    sizes = {name: len(await make()) for name, make in made_by.items()}
    least = dict.fromkeys(made_by, float("inf"))
    for _ in range(ROUNDS):
        for name, make in made_by.items():
            began = time.process_time()
            for _ in range(TIMES):
                await make()
            least[name] = min(least[name], (time.process_time() - began) / TIMES * 1e6)
    return {name: (least[name], sizes[name]) for name in made_by}


async def _nowhere(_place: ClientKeysPlace) -> UnreadDocument:
    return UnreadDocument(text="nothing is read here")


def main() -> None:
    """Print a line for each, with the share of an RS256 signature."""
    with TemporaryDirectory() as folder:
        found = asyncio.run(measure(Path(folder)))
    whole, console = found["sign RS256"][0], Console(width=120, highlight=False)
    for name, (taken, size) in found.items():
        console.print(f"{name:40} {taken:6.0f} µs {taken / whole:5.2f} × RS256 {size:6} characters")


if __name__ == "__main__":
    main()
