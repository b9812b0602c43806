"""Look names up by the resolver and by getent, with the name servers and files of a pod.

Run in a private network and mount namespace (`PRIVATE`). The argument is JSON: `zones` and `edns` of the NameServer,
the text of `resolv.conf` and `hosts`, and the `names`. Prints a JSON object with the addresses of each name, found by
`resolver` and `getent`.
"""

import asyncio
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from notifier.network.http.name_resolver import NameResolver
from tests.support.name_server import NameServer

PRIVATE = ("unshare", *(() if os.geteuid() == 0 else ("--map-root-user",)), "--net", "--mount", "--propagation",
           "private")  # fmt: skip
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


def _start_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        flags = struct.unpack("16sH14x", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack("16sH14x", b"lo", 0)))[1]
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))


async def _run(zones: dict[str, str | int], edns: int, names: list[str]) -> dict[str, dict[str, list[str]]]:
    await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: NameServer(zones, edns), local_addr=("127.0.0.1", 53)
    )
    resolver, found = NameResolver(), {}
    for name in names:
        try:
            async with asyncio.timeout(5.0):
                addresses = [each["host"] for each in await resolver.resolve(name)]
        except (OSError, TimeoutError):
            addresses = []
        asked = await asyncio.create_subprocess_exec("getent", "hosts", name, stdout=subprocess.PIPE)
        lines = (await asked.communicate())[0].decode().splitlines()
        found[name] = {"resolver": addresses, "getent": [line.split()[0] for line in lines]}
    await resolver.close()
    return found


def main() -> None:
    """Run in the namespaces."""
    _start_loopback()
    what = json.loads(sys.argv[1])
    files = {"resolv.conf": what["resolv.conf"], "hosts": what["hosts"], "nsswitch.conf": "hosts: files dns\n"}
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            file = Path(folder, name)
            file.write_text(text)
            subprocess.run(["mount", "--bind", file, f"/etc/{name}"], check=True)
        sys.stdout.write(json.dumps(asyncio.run(_run(what["zones"], what["edns"], what["names"]))))


if __name__ == "__main__":
    main()
