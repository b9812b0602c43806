"""A TLS 1.3 peer that sends any record after its handshake: it seals records itself, with the keys of the key log."""

import ssl
import struct
from pathlib import Path

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ALERT, HANDSHAKE, APPLICATION = 21, 22, 23  # types of records


def _expand(kind: hashes.HashAlgorithm, secret: bytes, label: bytes, size: int) -> bytes:
    """Return HKDF-Expand-Label (RFC 8446 §7.1) of up to one block."""
    full = b"tls13 " + label
    mac = hmac.HMAC(secret, kind)
    mac.update(struct.pack("!HB", size, len(full)) + full + b"\0\1")
    return mac.finalize()[:size]


def tickets(count: int) -> bytes:
    """Return NewSessionTicket messages, the smallest."""
    body = struct.pack("!II", 3600, 1) + b"\1\0" + b"\0\1t" + b"\0\0"
    return (b"\x04" + len(body).to_bytes(3) + body) * count


class TlsPeer:
    """A server with a certificate, or a client that trusts everybody. `receive` and `take` exchange the handshake."""

    def __init__(self, folder: Path, cert_file: Path | None = None) -> None:
        """`folder`: for the key log."""
        is_server = cert_file is not None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
        if cert_file is not None:
            context.load_cert_chain(cert_file)
            context.num_tickets = 0  # so that records are numbered from 0
        else:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._side = "SERVER" if is_server else "CLIENT"
        self._log = folder / "keys.log"
        self._log.unlink(missing_ok=True)
        context.keylog_filename = str(self._log)
        self._received, self._sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._received, self._sent, server_side=is_server)
        self.is_ready = False
        self.receive(b"")

    def receive(self, data: bytes) -> None:
        """Go on with the handshake."""
        self._received.write(data)
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        if self.is_ready:
            return
        self.is_ready = True
        lines = [line.split() for line in self._log.read_text().splitlines() if line[0] != "#"]
        self._secret = next(bytes.fromhex(line[2]) for line in lines if line[0] == f"{self._side}_TRAFFIC_SECRET_0")
        name, _, bits = self._tls.cipher() or ("", "", 0)
        self._kind = hashes.SHA384() if "SHA384" in name else hashes.SHA256()
        self._key_size = bits // 8
        self._use_secret()

    def take(self) -> bytes:
        """Return the bytes of the handshake that are to be sent."""
        return self._sent.read()

    def read(self) -> bytes:
        """Return data that `receive` was given, or nothing."""
        try:
            return self._tls.read(65536) if self.is_ready else b""
        except ssl.SSLWantReadError:
            return b""

    def seal(self, kind: int, content: bytes, padding: int = 0) -> bytes:
        """Return a record. `padding`: bytes after the content."""
        inner = content + bytes([kind]) + bytes(padding)
        head = b"\x17\x03\x03" + struct.pack("!H", len(inner) + 16)
        nonce = (self._nonce ^ self._number).to_bytes(12)
        self._number += 1
        return head + self._cipher.encrypt(nonce, inner, head)

    def data(self, content: bytes) -> bytes:
        """Return a record with data."""
        return self.seal(APPLICATION, content)

    def key_updates(self, count: int, *, reply: bool = False) -> bytes:
        """Return records that update the keys, and may request the same of the other side."""
        return b"".join(self._key_update(reply) for _ in range(count))

    def _key_update(self, reply: bool) -> bytes:
        record = self.seal(HANDSHAKE, b"\x18\0\0\1" + bytes([reply]))
        self._secret = _expand(self._kind, self._secret, b"traffic upd", self._kind.digest_size)
        self._use_secret()
        return record

    def _use_secret(self) -> None:
        self._cipher = AESGCM(_expand(self._kind, self._secret, b"key", self._key_size))
        self._nonce = int.from_bytes(_expand(self._kind, self._secret, b"iv", 12))
        self._number = 0
