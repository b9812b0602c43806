"""A private Redis for tests: on a free port of loopback, without files, gone at the end."""

import contextlib
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.support.apt_programs import program
from tests.support.rabbitmq_node import _guard, free_ports

BOOT_SECONDS = 60.0  # a tenth of a second on an idle machine


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisServer:
    """Where it listens."""

    port: int

    @property
    def url(self) -> str:
        """As Redis clients want it."""
        return f"redis://127.0.0.1:{self.port}"

    def ask(self, command: str) -> bytes:
        """Its answer to a command, as it comes over the wire."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=BOOT_SECONDS) as connection:
            connection.sendall(f"{command}\r\n".encode())
            return connection.recv(1000)


@contextlib.contextmanager
def redis_server() -> Iterator[RedisServer]:
    """A running one."""
    [port] = free_ports(1)
    command = [program("redis-server", "redis-server"), "--port", str(port), "--bind", "127.0.0.1"]
    command += ["--save", "", "--appendonly", "no", "--dir", "/"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        guard = _guard(process.pid)
        try:
            if not _opened(port, process):
                log.seek(0)
                raise RuntimeError(f"Redis did not open port {port}: {log.read()[-2000:].decode()}")
            yield RedisServer(port=port)
        finally:
            process.kill()
            process.wait()
            guard.kill()
            guard.communicate()


def _opened(port: int, process: "subprocess.Popen[bytes]") -> bool:
    give_up = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < give_up and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        time.sleep(0.02)  # another process's start cannot be awaited otherwise
    return False
