"""A private PostgreSQL and MariaDB for tests, on loopback, in temporary folders, without fsync.

Each starts in about two seconds and removes its files. Tests may kill, freeze and thaw them; both support TLS.
"""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pymysql
import sqlalchemy as sa

from tests.support.apt_programs import program
from tests.support.certificates import Authority, authority
from tests.support.rabbitmq_node import free_ports

BOOT_SECONDS = 60.0  # about one on an idle machine
PASSWORD = "hunter2-of-the-reader"


class DatabaseServer:
    """A database server. Its user `reader` logs in with PASSWORD and may SELECT the tables granted to it."""

    def __init__(
        self, home: Path, port: int, command: Callable[["DatabaseServer"], Sequence[str]], user: str | None
    ) -> None:
        self.port = port
        self.home = home
        self._user = user
        self._command = command
        self._server: subprocess.Popen[bytes] | None = None
        self.scheme = "postgresql"
        self.authority: Authority | None = None

    @property
    def root(self) -> str:
        """Return the administrator's URL for SQLAlchemy."""
        if self.scheme == "postgresql":
            return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"
        return f"mysql+pymysql://root@127.0.0.1:{self.port}/ids"

    @property
    def url(self) -> str:
        """Return the reader's URL, as an operator writes it."""
        database = "postgres" if self.scheme == "postgresql" else "ids"
        return f"{self.scheme}://reader:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def run(self, *statements: str) -> None:
        """Run statements as administrator."""
        engine = sa.create_engine(self.root, poolclass=sa.NullPool)
        with engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
        engine.dispose()

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        self._server = subprocess.Popen(
            self._command(self),
            cwd=self.home,
            stdout=subprocess.DEVNULL,
            stderr=(self.home / "log").open("ab"),
            user=self._user,
            group=self._user and pwd.getpwnam(self._user).pw_gid,
            extra_groups=[] if self._user else None,
            start_new_session=True,
        )
        until = time.monotonic() + BOOT_SECONDS
        while True:
            try:
                self.run("SELECT 1")
            except (sa.exc.SQLAlchemyError, pymysql.MySQLError):
                if self._server.poll() is not None or time.monotonic() > until:
                    raise AssertionError((self.home / "log").read_text()[-3000:]) from None
                time.sleep(0.05)
            else:
                return

    def signal(self, sign: signal.Signals) -> None:
        """Send a signal to each process of the server."""
        assert self._server is not None
        if self._server.poll() is not None:
            return
        for process in (self._server.pid, *_children(self._server.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, sign)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze the server within the context."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill the server with SIGKILL."""
        assert self._server is not None
        self.signal(signal.SIGKILL)
        self._server.wait()

    def stop(self) -> None:
        """Stop the server for good. PostgreSQL releases its shared memory on an orderly stop."""
        if self._server is None:
            return
        self.signal(signal.SIGCONT)
        if self._server.poll() is None and self.scheme == "postgresql":
            self._server.send_signal(signal.SIGQUIT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._server.wait(10)
        self.kill()


def _children(parent: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    except FileNotFoundError:
        return []


@contextlib.contextmanager
def _home(user: str | None) -> Iterator[Path]:
    memory = Path("/dev/shm")
    home = Path(tempfile.mkdtemp(prefix="notifier-tests-", dir=memory if os.access(memory, os.W_OK) else None))
    try:
        if user is not None:
            shutil.chown(home, user)
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def _running(server: DatabaseServer) -> Iterator[DatabaseServer]:
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _certificate(home: Path, user: str | None) -> Authority:
    issuer = authority(home)
    pem = issuer.issue("localhost")
    pem.rename(home / "server.pem")
    (home / "server.pem").chmod(0o600)
    if user is not None:
        shutil.chown(home / "server.pem", user)
    return issuer


@contextlib.contextmanager
def postgresql() -> Iterator[DatabaseServer]:
    """Start a PostgreSQL. Raise ProgramMissing."""
    folders = "/usr/lib/postgresql/*/bin"
    postgres, initdb = (program(name, "postgresql", folders) for name in ("postgres", "initdb"))
    user = "postgres" if os.geteuid() == 0 else None  # it does not run as root
    with _home(user) as home:
        subprocess.run(
            [initdb, "-D", "data", "-U", "postgres", "--no-sync", "-A", "trust", "-E", "UTF8", "--no-locale"],
            cwd=home, user=user, group=user and pwd.getpwnam(user).pw_gid, extra_groups=[] if user else None,
            check=True, capture_output=True,
        )  # fmt: skip
        issuer = _certificate(home, user)
        (home / "data" / "pg_hba.conf").write_text(
            "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        )
        pem = home / "server.pem"
        settings = {
            "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "shared_buffers": "16MB", "fsync": "off",
            "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off", "max_connections": "20",
            "dynamic_shared_memory_type": "mmap", "ssl": "on", "ssl_cert_file": str(pem), "ssl_key_file": str(pem),
        }  # fmt: skip
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        server = DatabaseServer(
            home, free_ports(1)[0], lambda self: [postgres, "-D", "data", "-p", str(self.port), *options], user
        )
        server.authority = issuer
        with _running(server):
            server.run(f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'")
            yield server


@contextlib.contextmanager
def mariadb() -> Iterator[DatabaseServer]:
    """Start a MariaDB with a database `ids`. Raise ProgramMissing."""
    folders = "/usr/sbin"
    daemon, install = (program(name, "mariadb-server", folders) for name in ("mariadbd", "mariadb-install-db"))
    as_root = ["--user=root"] if os.geteuid() == 0 else []
    with _home(None) as home:
        subprocess.run(
            [install, "--no-defaults", f"--datadir={home}/data", "--auth-root-authentication-method=normal",
             "--skip-test-db", *as_root],
            cwd=home, check=True, capture_output=True,
        )  # fmt: skip
        issuer = _certificate(home, None)
        command = [
            daemon, "--no-defaults", f"--datadir={home}/data", "--bind-address=127.0.0.1", f"--socket={home}/socket",
            "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=32M", "--skip-log-bin",
            "--innodb-fast-shutdown=3", f"--pid-file={home}/pid", f"--ssl-cert={home}/server.pem",
            f"--ssl-key={home}/server.pem",
            f"--init-file={home}/init.sql", "--skip-name-resolve", *as_root,
        ]  # fmt: skip
        server = DatabaseServer(home, free_ports(1)[0], lambda self: [*command, f"--port={self.port}"], None)
        server.authority, server.scheme = issuer, "mysql"
        (home / "init.sql").write_text(
            "CREATE DATABASE IF NOT EXISTS ids;\n"
            "CREATE USER IF NOT EXISTS root@'127.0.0.1';\n"
            "GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;\n"
            f"CREATE USER IF NOT EXISTS reader@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n"
            "GRANT SELECT ON ids.* TO reader@'127.0.0.1';\n"
        )
        with _running(server):
            yield server
