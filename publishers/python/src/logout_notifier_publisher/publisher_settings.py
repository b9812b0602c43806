"""The settings of a publisher. All mistakes are reported together, each with the setting's name and the remedy."""

import os
import socket
import ssl
import warnings
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from logout_notifier_publisher.address import AddressError, Server, read_address
from logout_notifier_publisher.deprecation import deprecated_name

DAY_SECONDS = 86_400.0
ERRNO_LIMIT = 4096  # Linux errno values are below this


class SettingsError(ValueError):
    """The settings are invalid. `mistakes` lists every mistake, as `(setting, text)`."""

    def __init__(self, mistakes: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{name} {text}" for name, text in mistakes))
        self.mistakes = tuple(mistakes)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherSettings:
    """The settings of a publisher. Times are in seconds.

    `url` and `outbox` are required. `secret`, or the content of `secret_file`, is the broker's password or the API's
    token.
    """

    url: str
    outbox: Path | str
    secret: str | None = None
    secret_file: Path | str | None = None
    outbox_max_events: int = 100_000
    outbox_max_bytes: int = 268_435_456
    outbox_max_age: float = 30 * DAY_SECONDS
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
        """Create settings from a mapping; names are case-insensitive. Raises SettingsError, also for unknown names."""
        known = {field.name: field for field in fields(cls)}
        mistakes = [
            (str(name), f"is not a setting; must be one of {', '.join(known)}")
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
        mistakes += settings.find_mistakes()
        if mistakes:
            raise SettingsError(mistakes)
        return settings

    @property
    def server(self) -> Server:
        """Return the parsed `url`. Raises AddressError."""
        return read_address(self.url)

    @property
    def outbox_folder(self) -> Path:
        """The absolute path of the outbox: a server may change its working directory when it becomes a daemon."""
        return Path(self.outbox).absolute()

    @property
    def folder(self) -> Path:
        """Return the outbox's folder under its former name."""
        warnings.warn("`folder` is deprecated: use `outbox_folder`", DeprecationWarning, stacklevel=2)
        return self.outbox_folder

    def find_mistakes(self) -> list[tuple[str, str]]:
        """Return every mistake, as `(setting, text)`. Opens the configured files."""
        found = [*self._check_url_and_secret(), *self._check_outbox()]
        for name in ("exchange", "bulk_exchange"):
            value = getattr(self, name)
            if not isinstance(value, str) or not 0 < len(value.encode()) <= 255:
                found.append((name, "must be the name of an exchange, such as notifier.events"))
        for name in ("outbox_max_events", "outbox_max_bytes"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                found.append((name, "must be a positive integer"))
        for name in ("outbox_max_age", "sign_out_limit", "publish_limit", "drain_limit"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
                found.append((name, "must be a positive number of seconds"))
        return found + self._check_tls()

    mistakes = deprecated_name("mistakes", "find_mistakes")

    def _check_url_and_secret(self) -> list[tuple[str, str]]:
        found = []
        try:
            server = self.server
        except AddressError as mistake:
            found.append(("url", str(mistake)))
        else:
            if server.protocol == "http" and find_spec("aiohttp") is None:
                found.append(
                    ("url", "is notifier's API, which requires aiohttp: pip install 'logout-notifier-publisher[http]'")
                )
            if server.password is not None and (self.secret is not None or self.secret_file is not None):
                found.append(("url", "contains a password, and `secret` or `secret_file` is set too: remove one"))
            elif (
                server.protocol == "amqp"
                and server.password is None
                and self.secret is None
                and self.secret_file is None
            ):
                found.append(("secret_file", "must be the path of the file with the broker's password"))
        if self.secret is not None and self.secret_file is not None:
            found.append(("secret", "is set together with `secret_file`: remove one"))
        if self.secret_file is not None and (text := _find_read_error(self.secret_file)) is not None:
            found.append(("secret_file", text))
        return found

    def _check_outbox(self) -> list[tuple[str, str]]:
        if not _is_path(self.outbox):
            return [
                (
                    "outbox",
                    "is required: a persistent folder for pending events, in a container a volume",
                )
            ]
        existing = self.outbox_folder
        while not existing.exists() and existing != existing.parent:
            existing = existing.parent
        if not existing.is_dir():
            return [("outbox", f"cannot be used: {existing} is not a directory")]
        if not os.access(existing, os.W_OK | os.X_OK):
            return [("outbox", f"is not writable: give the folder {existing} to the user of this process")]
        return []

    def _check_tls(self) -> list[tuple[str, str]]:
        names = ("ca_file", "certificate_file", "key_file")
        given = [name for name in names if getattr(self, name) is not None]
        found = [(name, text) for name in given if (text := _find_read_error(getattr(self, name))) is not None]
        if "key_file" in given and "certificate_file" not in given:
            found.append(("key_file", "requires `certificate_file`"))
        if given and not found:
            try:
                if not self.server.tls:
                    found.append((given[0], "requires TLS: use amqps:// or https:// in `url`"))
                else:
                    self.create_tls_context()
            except AddressError:
                pass  # reported already
            except (OSError, ValueError) as error:
                found.append(
                    (
                        "ca_file" if given == ["ca_file"] else "certificate_file",
                        f"cannot be used: {format_error(error)}",
                    )
                )
        return found

    def create_tls_context(self) -> ssl.SSLContext:
        """Create a context for TLS 1.2 or newer that verifies chain and name. Raises OSError or ValueError."""
        context = ssl.create_default_context(cafile=self.ca_file)
        # The same rules on every Python version: by default 3.13 rejects authorities without key usage, and 3.12 an
        # intermediate authority in ca_file.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.certificate_file is not None:
            # With the empty password an encrypted key raises an error. Without it OpenSSL would prompt on the terminal.
            context.load_cert_chain(self.certificate_file, self.key_file, password="")
        return context

    tls_context = deprecated_name("tls_context", "create_tls_context")

    def read_secret(self) -> str | None:
        """Return the current password or token. Raises OSError or ValueError."""
        if self.secret_file is not None:
            return Path(self.secret_file).read_text(encoding="utf-8").strip()
        return self.secret if self.secret is not None else self.server.password

    def __repr__(self) -> str:
        """Return a text without the secret, since settings are logged."""
        return f"PublisherSettings(outbox={str(self.outbox)!r}, …)"


def format_error_without_user_data(error: BaseException, *, with_file: bool = False) -> str:
    """Return the OS error text, or only the class name: other texts may contain user data. Never raises.

    `with_file`: append the file name. Use it only for outbox errors, since an application's file names may contain
    session keys.
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
