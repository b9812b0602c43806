"""The settings of a publisher. All mistakes are reported at once, each with the setting's name and the remedy."""

import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from logout_notifier_publisher.address import AddressMistake, Server, read_address

DAY = 86_400.0
ERRNO_LIMIT = 4096  # Linux returns no errno from here on (MAX_ERRNO)


class SettingsMistake(ValueError):  # noqa: N818  it is one, or several
    """The settings cannot be used. `mistakes` lists all that is wrong, as `(setting, text)`."""

    def __init__(self, mistakes: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{name} {text}" for name, text in mistakes))
        self.mistakes = tuple(mistakes)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherSettings:
    """What a publisher needs to know. Times are in seconds.

    `url` and `outbox` are required. `secret`, or what is in `secret_file`, is the broker's password or the API's token.
    """

    url: str
    outbox: Path | str
    secret: str | None = None
    secret_file: Path | str | None = None
    outbox_max_events: int = 100_000
    outbox_max_bytes: int = 268_435_456
    outbox_max_age: float = 30 * DAY
    ca_file: Path | str | None = None
    certificate_file: Path | str | None = None
    key_file: Path | str | None = None
    exchange: str = "notifier.events"
    bulk_exchange: str = "notifier.bulk"
    sign_out_limit: float = 2.0
    publish_limit: float = 10.0
    drain_limit: float = 5.0

    @classmethod
    def from_mapping(cls, given: Mapping[str, object]) -> Self:
        """From names in either case. Raises SettingsMistake, also for names that there are not."""
        known = {field.name: field for field in fields(cls)}
        mistakes = [
            (str(name), f"is not a setting; the settings are {', '.join(known)}")
            for name in given
            if str(name).lower() not in known
        ]
        lower: dict[str, Any] = {str(name).lower(): value for name, value in given.items() if value is not None}
        required = [name for name, field in known.items() if field.default is MISSING]
        values: dict[str, Any] = {
            **dict.fromkeys(required, ""),
            **{name: lower[name] for name in known if name in lower},
        }
        settings = cls(**values)
        mistakes += settings.mistakes()
        if mistakes:
            raise SettingsMistake(mistakes)
        return settings

    @property
    def server(self) -> Server:
        """Return the parsed `url`. Raises AddressMistake."""
        return read_address(self.url)

    @property
    def folder(self) -> Path:
        """The outbox's folder, absolute: a server may change its directory when it becomes a daemon."""
        return Path(self.outbox).absolute()

    def mistakes(self) -> list[tuple[str, str]]:
        """Everything that is wrong, as `(setting, text)`. Looks at the files that are named."""
        found = [*self._check_address(), *self._check_outbox()]
        for name in ("exchange", "bulk_exchange"):
            value = getattr(self, name)
            if not isinstance(value, str) or not 0 < len(value.encode()) <= 255:
                found.append((name, "must be the name of an exchange, such as notifier.events"))
        for name in ("outbox_max_events", "outbox_max_bytes"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                found.append((name, "must be a whole number above 0"))
        for name in ("outbox_max_age", "sign_out_limit", "publish_limit", "drain_limit"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
                found.append((name, "must be a number of seconds above 0"))
        return found + self._check_tls()

    def _check_address(self) -> list[tuple[str, str]]:
        found = []
        try:
            server = self.server
        except AddressMistake as mistake:
            found.append(("url", str(mistake)))
        else:
            if server.protocol == "http" and find_spec("aiohttp") is None:
                found.append(
                    ("url", "is notifier's API, which needs aiohttp: pip install 'logout-notifier-publisher[http]'")
                )
            if server.password is not None and (self.secret is not None or self.secret_file is not None):
                found.append(("url", "contains a password, and `secret` or `secret_file` is set too: remove one"))
            elif (
                server.protocol == "amqp"
                and server.password is None
                and self.secret is None
                and self.secret_file is None
            ):
                found.append(("secret_file", "must name the file of the broker's password"))
        if self.secret is not None and self.secret_file is not None:
            found.append(("secret", "is given beside `secret_file`: leave out one"))
        if self.secret_file is not None and (text := _find_read_error(self.secret_file)) is not None:
            found.append(("secret_file", text))
        return found

    def _check_outbox(self) -> list[tuple[str, str]]:
        if not _is_path(self.outbox):
            return [
                (
                    "outbox",
                    "is required: a folder that outlives the process, where events wait; in a container a volume",
                )
            ]
        at = self.folder
        while not at.exists() and at != at.parent:
            at = at.parent
        if not at.is_dir():
            return [("outbox", f"cannot be a folder: {at} is none")]
        if not os.access(at, os.W_OK | os.X_OK):
            return [("outbox", f"cannot be written: give the folder {at} to the user that this process runs as")]
        return []

    def _check_tls(self) -> list[tuple[str, str]]:
        names = ("ca_file", "certificate_file", "key_file")
        given = [name for name in names if getattr(self, name) is not None]
        found = [(name, text) for name in given if (text := _find_read_error(getattr(self, name))) is not None]
        if "key_file" in given and "certificate_file" not in given:
            found.append(("key_file", "needs `certificate_file` beside it"))
        if given and not found:
            try:
                if not self.server.tls:
                    found.append((given[0], "is of no use without TLS: write amqps:// or https:// in `url`"))
                else:
                    self.tls_context()
            except AddressMistake:
                pass  # reported already
            except (OSError, ValueError) as error:
                found.append(
                    (
                        "ca_file" if given == ["ca_file"] else "certificate_file",
                        f"cannot be used: {format_error(error)}",
                    )
                )
        return found

    def tls_context(self) -> ssl.SSLContext:
        """Verifies chain and name, TLS 1.2 or newer. Raises OSError or ValueError for files that cannot be used."""
        context = ssl.create_default_context(cafile=self.ca_file)
        # As on all versions of Python: 3.13 refuses authorities without key usage, and 3.12 an intermediate in ca_file.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.certificate_file is not None:
            # The empty password makes an encrypted key an error. Without it OpenSSL would ask on the terminal.
            context.load_cert_chain(self.certificate_file, self.key_file, password="")
        return context

    def read_secret(self) -> str | None:
        """The password or token as it is now. Raises OSError or ValueError."""
        if self.secret_file is not None:
            return Path(self.secret_file).read_text(encoding="utf-8").strip()
        return self.secret if self.secret is not None else self.server.password

    def __repr__(self) -> str:
        """Without the secret: settings are logged."""
        return f"PublisherSettings(outbox={str(self.outbox)!r}, …)"


def format_cause(error: BaseException, *, with_file: bool = False) -> str:
    """Return the system's text of an error, else its class alone, since the text may name the user. Never raises.

    `with_file`: with the file, for the outbox's errors alone. An application may name a file after a session's key.
    """
    text: object = None
    if isinstance(error, ssl.SSLError):
        text = getattr(error, "reason", None)
    elif isinstance(error, socket.gaierror):
        text = error.strerror
    elif isinstance(error, OSError) and type(error.errno) is int and 0 < error.errno < ERRNO_LIMIT:
        text = None if isinstance(error, socket.herror) else os.strerror(error.errno)
    if not text or not isinstance(text, str):
        return type(error).__name__
    file = getattr(error, "filename", None) if with_file else None
    return f"{text}: {file}" if isinstance(file, str | Path) else text


def format_error(error: BaseException) -> str:
    """Return an error's text on one line, without repeating the file name."""
    text = getattr(error, "reason", None) if isinstance(error, ssl.SSLError) else getattr(error, "strerror", None)
    return " ".join(str(text or str(error) or type(error).__name__).split())[:300]


def _is_path(value: object) -> bool:
    return isinstance(value, str | Path) and str(value) not in ("", ".")


def _find_read_error(path: object) -> str | None:
    if not _is_path(path) or not isinstance(path, str | Path):
        return "must be the path of a file"
    try:
        with Path(path).open("rb") as file:
            file.read(1)
    except OSError as error:
        return f"cannot be read: {path}: {format_error(error)}"
    return None
