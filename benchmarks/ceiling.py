"""The ceiling: the smallest program that mints and POSTs logout tokens by the same libraries. It keeps nothing.

    python -m benchmarks.ceiling --key KEY.pem --alg RS256 --url URL --count 20000

No queue, no retry, no isolation, no log. It prints one line of JSON: how many and the
seconds, also of the processor.
"""

import argparse
import asyncio
import json
import resource
import ssl
import sys
import time
from pathlib import Path
from urllib.parse import urlencode
from uuid import uuid4

import aiohttp
import jwt
import uvloop
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from yarl import URL

AT_ONCE = 64  # more is not faster, on loopback
CLAIMS = {
    "iss": "https://id.example.com",
    "aud": "client-0",
    "sub": "alice",
    "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
}


async def main(given: argparse.Namespace) -> None:
    """POST so many tokens."""
    key = load_pem_private_key(given.key.read_bytes(), None)
    urls = [URL(url) for url in given.url]
    tls = ssl.create_default_context(cafile=given.ca) if given.ca else True
    rest = iter(range(given.count))

    async def send(session: aiohttp.ClientSession) -> None:
        for number in rest:
            now = int(time.time())
            claims = {**CLAIMS, "iat": now, "exp": now + 120, "jti": str(uuid4()), "sid": f"session-{number}"}
            token = jwt.encode(claims, key, algorithm=given.alg, headers={"typ": "logout+jwt", "kid": "k"})  # type: ignore[arg-type]
            data = urlencode({"logout_token": token}).encode()
            async with session.post(urls[number % len(urls)], data=data, ssl=tls) as response:
                await response.read()
                if response.status != 200:
                    raise RuntimeError(f"answered {response.status}")

    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=headers, cookie_jar=aiohttp.DummyCookieJar()) as s:
        for url in urls:  # the connections are made before the clock runs
            async with s.get(url, ssl=tls) as response:
                await response.read()
        began, used = time.monotonic(), _cpu()
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(send(s))
        seconds = time.monotonic() - began
        told = {"count": given.count, "seconds": seconds, "cpu": _cpu() - used}
    sys.stdout.write(json.dumps(told) + "\n")


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--key", type=Path, required=True)
    parser.add_argument("--alg", required=True)
    parser.add_argument("--url", action="append", required=True)
    parser.add_argument("--ca", help="of the receiver's certificate")
    parser.add_argument("--count", type=int, default=20_000)
    uvloop.run(main(parser.parse_args()))
