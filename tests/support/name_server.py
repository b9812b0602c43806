"""A name server that answers as its test says."""

import asyncio
import socket
import struct
from collections.abc import Mapping
from typing import cast

FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 1, 2, 3, 4, 5
SILENCE = -1


class NameServer(asyncio.DatagramProtocol):
    """Answer with the address of a name, or by a code (or SILENCE) of the longest suffix in `zones`; or NXDOMAIN.

    `edns`: the code for queries with EDNS. `echo`: that answer repeats all of the query.
    """

    def __init__(self, zones: Mapping[str, str | int], edns: int = 0, *, echo: bool = False) -> None:
        self.zones, self.edns, self.echo, self.names = zones, edns, echo, list[str]()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast("asyncio.DatagramTransport", transport)
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, peer: tuple[str, int]) -> None:
        """Called by asyncio."""
        end = data.index(b"\0", 12) + 5
        labels, at = [], 12
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode())
            at += 1 + data[at]
        if data[end - 4 : end - 2] == b"\0\1":  # of A and AAAA, which are queried together
            self.names.append(".".join(labels))
        has_edns = data[10:12] != b"\0\0"
        found = self.edns if has_edns and self.edns else self._find(labels)
        if found == SILENCE:
            return
        code = 0 if isinstance(found, str) else found
        if self.echo and code:
            self._transport.sendto(data[:2] + struct.pack(">H", 0x8180 | code) + data[4:], peer)
            return
        record = b""
        if isinstance(found, str) and (data[end - 4 : end - 2] == b"\0\1") == ("." in found):
            packed = socket.inet_pton(socket.AF_INET if "." in found else socket.AF_INET6, found)
            record = b"\xc0\x0c" + data[end - 4 : end] + struct.pack(">IH", 0, len(packed)) + packed
        head = data[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, bool(record), 0, 0)
        self._transport.sendto(head + data[12:end] + record, peer)

    def _find(self, labels: list[str]) -> str | int:
        suffixes = [".".join(labels[count:]) for count in range(len(labels))]
        return next((self.zones[each] for each in suffixes if each in self.zones), NXDOMAIN)
