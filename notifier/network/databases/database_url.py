"""Checks the URL of a database in settings."""

import re
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, SecretStr, ValidationInfo

from notifier.model.printable import stray_character

DATABASES = ("postgresql", "postgres", "mysql", "mariadb", "mssql", "sqlite")


_FILE = re.compile(r"(sqlite(?:\+pysqlite)?:///)(?!/|file:)(.+)")


def find_url_issue(url: str) -> str | None:
    """Return why this is not a database URL, without showing any part of it; None if it may be valid."""
    if url != url.strip() or not url.isprintable():
        return stray_character(url)
    scheme, colon, rest = url.partition("://")
    if not colon or scheme.partition("+")[0] not in DATABASES:
        return stray_character(url) or (
            "must be a URL that begins with postgresql://, mysql://, mariadb://, mssql:// or sqlite:///, such as"
            " postgresql://USER:PASSWORD@HOST/DATABASE"
        )
    if scheme.startswith("sqlite"):
        return None if rest.startswith("/") and len(rest) > 1 else "must name a file: sqlite:////var/lib/ids/clients.db"
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if authority.count("@") > 1 or ("@" not in authority and "@" in rest.partition("?")[0]):
        return "has a user or password with @, /, ? or # in it; write them as %40, %2F, %3F and %23"
    if "," in authority:
        return "names several hosts; write them as postgresql://USER:PASSWORD@/DATABASE?host=A:5432&host=B:5432"
    if re.match(r"[^:@]*:@", authority):
        return "has an empty password; remove the colon, or give the password"
    try:
        port = urlsplit(f"//{authority.rpartition('@')[2]}").port
    except ValueError:
        return "has a port that is not a number, or a password with special characters; write these as %3A and so on"
    return "has the port 0" if port == 0 else None


def _check_url(value: SecretStr, info: ValidationInfo) -> SecretStr:
    """Return the URL. A relative file of SQLite is resolved against the folder of the configuration."""
    url = value.get_secret_value()
    text = find_url_issue(url)
    if text is not None:
        raise ValueError(text)
    file, base = _FILE.fullmatch(url), (info.context or {}).get("base")
    return (
        value if file is None or base is None else SecretStr(f"{file[1]}{quote(str(Path(base).absolute()))}/{file[2]}")
    )


DatabaseUrl = Annotated[SecretStr, AfterValidator(_check_url)]
