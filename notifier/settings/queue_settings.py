"""Defines the section `queue` of the settings, and checks its URLs.

Error messages show no part of a URL, which may contain a password.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar, Literal, Self
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import Field, ValidationInfo, field_validator, model_validator

from notifier.model.defaults import BUCKETS, MAX_EVENT, MOST_BUCKETS, PREFETCH
from notifier.model.message import Lane
from notifier.model.nearest import suggest
from notifier.model.printable import stray_character
from notifier.settings.choices import at_most_one
from notifier.settings.file_owners import find_foreign_queue_file
from notifier.settings.file_paths import expand_home
from notifier.settings.policies import TlsSettings
from notifier.settings.secret_text import SecretPath, SecretText
from notifier.settings.values import Name, Section, TextList, has_host

_SEVERAL = re.compile(r"(?i)[,;|\s](sqlite|amqps?):")
_OPTIONS = ("auth", "heartbeat", "timeout", "name")
"""Query options that aiormq reads, without those of TLS, which the context from `queue.tls` replaces."""

_LIKE_TLS = re.compile(r"(?i)ssl|tls|verify|cert|ca_?(file|path|data)|key_?file|fail_if_no|server_name|depth")
SQLITE = "sqlite:"
QUEUE_FILE = "notifier.db"


def find_url_error(url: str) -> str | None:
    """Return the error of a URL in `queue.url`; None if it is valid."""
    if not url.strip():
        return "must not be empty; give sqlite:PATH or amqp://HOST, or leave it out for a file beside the configuration"
    if _SEVERAL.search(url.strip()):
        return "holds several URLs in one text; give a list: [amqp://A, amqp://B]"
    if (stray := stray_character(url)) is not None:
        return stray
    if not url.startswith(("amqp:", "amqps:")):
        return None
    _, _, rest = url.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if re.search("[,;]", authority.partition("@")[2] if "@" in authority else authority):
        return "names several hosts in one URL; give a list with a URL for each: [amqp://A, amqp://B]"
    user, _, _ = authority.rpartition("@")
    path = rest[len(authority) :].partition("?")[0]
    # An unescaped character of the user name, password or virtual host would end this part of the URL.
    if "#" in rest or "[" in user or "@" in path or ("@" not in authority and "@" in rest):
        return (
            "has @, /, ?, # or [ in a user name, password or virtual host; write %40, %2F, %3F, %23 or %5B,"
            " or give the password in password_file"
        )
    if not has_host(url, "amqp", "amqps"):
        return "must have a host, and a port between 1 and 65535 if any, such as amqp://localhost:5672/"
    if re.search(r"\s", url):
        return "has a blank in it; write %20"
    if urlsplit(url).password == "":
        return "has an empty password; remove the colon, or give the password"
    return _find_option_error(parse_qs(urlsplit(url).query, keep_blank_values=True))


def _find_option_error(names: Iterable[str]) -> str | None:
    """Return an error for a query option without effect; None if all have one.

    An ignored option of TLS could leave a connection unencrypted.
    """
    for name in names:
        if name == "auth_mechanism":
            return "write auth instead of auth_mechanism"
        if name in _OPTIONS:
            continue
        if _LIKE_TLS.search(name):
            return f"the option {_format_name(name)} has no effect; for TLS write amqps://, and give files in queue.tls"
        return f"the option {_format_name(name)} has no effect; {suggest(name, _OPTIONS)}"
    return None


def _format_name(name: str) -> str:
    """Return the name of an option for messages. It is hidden if it may be part of a password."""
    return name if re.fullmatch(r"[A-Za-z_.]{1,40}", name) else "in the query"


class Prefetch(Section):
    """How many messages a worker takes before it acks them."""

    gone: ClassVar[Mapping[str, str]] = {
        "events": f"is gone: it is {PREFETCH[Lane.EVENTS]} now",
        "retries": f"is gone: it is {PREFETCH[Lane.RETRIES]} now",
    }

    bulk: int = Field(PREFETCH[Lane.BULK], ge=1, le=2000)
    """Mass logouts."""


class QueueSettings(Section):
    """The queue: RabbitMQ, or one SQLite file for a single worker."""

    gone: ClassVar[Mapping[str, str]] = {
        "max_event": f"is gone: it is {MAX_EVENT // 1024}KiB now",
        "management": "is gone: rabbitmqctl list_policies and rabbitmqctl list_operator_policies show all policies",
    }

    tls: TlsSettings | None = Field(  # before url, whose check reads it
        None, description="TLS to the broker. If given, amqp:// is read as amqps://."
    )
    url: TextList = Field(
        (f"{SQLITE}{QUEUE_FILE}",),
        repr=False,  # may hold a password
        min_length=1,
        description="`sqlite:PATH`, `amqp://HOST:PORT/VHOST`, `amqps://…`, or a list with each host of one cluster.",
    )
    username: Name | None = None
    """The user name, here or in the URL."""
    password: SecretText | None = None
    """The password, here, in `password_file` or in the URL."""
    password_file: SecretPath | None = None
    """A file with the password. It is read again at each reconnect."""
    prefix: str = Field("notifier", pattern=r"^[A-Za-z0-9_.:-]{1,100}$")
    """The beginning of all names of queues and exchanges."""
    topology: Literal["declare", "verify"] = "declare"
    """`declare` creates what is missing; `verify` changes nothing on the broker."""
    buckets: int = Field(BUCKETS, ge=1, le=MOST_BUCKETS)
    """Queues in which deliveries wait for clients that are down. Clients share them."""
    prefetch: Prefetch = Prefetch()
    """Messages taken and not yet acked."""

    @property
    def sqlite_file(self) -> Path | None:
        """The file of the embedded queue; None for RabbitMQ."""
        return Path(self.url[0].removeprefix(SQLITE)) if self.url[0].startswith(SQLITE) else None

    @property
    def user(self) -> str | None:
        """The broker's user name in the settings; None for SQLite and for a certificate's account."""
        if self.sqlite_file is not None or _auth_of(self.url[0]) == "external":
            return None
        return self.username or unquote(urlsplit(self.url[0]).username or "") or "guest"

    @field_validator("url", mode="after")
    @classmethod
    def _check_urls(cls, urls: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        """Return the URLs: with an absolute path for SQLite, and with amqps for a broker if `tls` is set."""
        for url in urls:
            error = find_url_error(url)
            if error is not None:
                raise ValueError(error)
        schemes = {url.partition(":")[0] for url in urls}
        if schemes == {"sqlite"} and len(urls) == 1 and len(urls[0]) > len(SQLITE):
            base = (info.context or {}).get("base", Path())
            file = (base / expand_home(Path(urls[0].removeprefix(SQLITE)))).absolute()
            if (foreign := find_foreign_queue_file(file)) is not None:
                raise ValueError(foreign)
            return (f"{SQLITE}{file}",)  # absolute, so that messages show where it is
        if schemes in ({"amqp"}, {"amqps"}):
            # The section tls requires TLS: a missing s in the URL must not cause plaintext connections.
            return tuple(url.replace("amqp:", "amqps:", 1) for url in urls) if info.data.get("tls") else urls
        raise ValueError(
            "must be sqlite:PATH, amqp://HOST, amqps://HOST, or a list of URLs that are all amqp or all amqps"
        )

    _check_one_password = at_most_one("password", "password_file")

    @model_validator(mode="after")
    def _check_credentials(self) -> Self:
        if self.sqlite_file is not None:
            names = ("username", "password", "password_file", "tls")
            if options := [name for name in names if getattr(self, name) is not None]:
                raise ValueError(
                    f"{', '.join(options)} cannot be used with sqlite; remove it, or set url to that of a broker"
                )
            return self
        error = self._find_auth_error()
        if error is not None:
            raise ValueError(error)
        has_credentials = self.username is not None or self.password is not None or self.password_file is not None
        parts = [urlsplit(url) for url in self.url]
        if self.username is not None and any(part.username for part in parts):
            raise ValueError("the user name is given in url and in username; remove one of them")
        if has_credentials and any(part.password for part in parts):
            raise ValueError("the password is given in url and beside it; remove one of them")
        return self

    def _find_auth_error(self) -> str | None:
        """Return the error in the option `auth` of the URLs, which selects password or certificate."""
        methods = {_auth_of(url) for url in self.url}
        if methods == {"plain"}:
            return None
        if methods != {"external"}:
            return "url: auth must be plain, or external in each URL"
        if self.tls is None or self.tls.cert_file is None:
            return "url: auth=external means the account of our certificate; give tls.cert_file and tls.key_file"
        if any(urlsplit(url).username for url in self.url) or self.username is not None:
            return "url: auth=external takes the user name from our certificate; remove the user name and the password"
        if self.password is not None or self.password_file is not None:
            return "url: auth=external needs no password; remove it"
        return None


def _auth_of(url: str) -> str:
    return parse_qs(urlsplit(url).query).get("auth", ["plain"])[-1].lower()
