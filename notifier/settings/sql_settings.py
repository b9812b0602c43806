"""A database as a registry source: what an operator says of it, and which URLs are ones of databases."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, model_validator

from notifier.settings.values import ExistingFile, Section

DATABASES = ("postgresql", "postgres", "mysql", "mariadb", "mssql", "sqlite")
_FILE = re.compile(r"(sqlite(?:\+pysqlite)?:///)(?!/|file:)(.+)")


def url_mistake(url: str) -> str | None:
    """Why this is no URL of a database, without showing any of it; None if it may be one."""
    scheme, colon, rest = url.partition("://")
    if not colon or scheme.partition("+")[0] not in DATABASES:
        given = ""
        if re.search(r"(?i)\b(server|data source|host)\s*=", url):
            given = " (not a connection string as .NET has it)"
        elif url.startswith("jdbc:"):
            given = " (without jdbc:)"
        return (
            "must be a URL that begins with postgresql://, mysql://, mariadb://, mssql:// or sqlite:///"
            f"{given}, such as postgresql://USER:PASSWORD@HOST/DATABASE"
        )
    if scheme.startswith("sqlite"):
        return None if rest.startswith("/") and len(rest) > 1 else "must name a file: sqlite:////var/lib/ids/clients.db"
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if authority.count("@") > 1 or ("@" not in authority and "@" in rest.partition("?")[0]):
        return "has a user or password with @, /, ? or # in it; write them as %40, %2F, %3F and %23"
    if "," in authority:
        return "names several hosts; write them as postgresql://USER:PASSWORD@/DATABASE?host=A:5432&host=B:5432"
    try:
        port = urlsplit(f"//{authority.rpartition('@')[2]}").port
    except ValueError:
        return "has a port that is no number, or a password with special characters; write these as %3A and the like"
    return "has the port 0" if port == 0 else None


def _url(value: SecretStr, info: ValidationInfo) -> SecretStr:
    """The URL. A relative file of SQLite starts at the folder of the configuration."""
    url = value.get_secret_value()
    text = url_mistake(url)
    if text is not None:
        raise ValueError(text)
    file, base = _FILE.fullmatch(url), (info.context or {}).get("base")
    return (
        value if file is None or base is None else SecretStr(f"{file[1]}{quote(str(Path(base).absolute()))}/{file[2]}")
    )


DatabaseUrl = Annotated[SecretStr, AfterValidator(_url)]


class DuendeTables(Section):
    """What the tables are called, if it is not what Duende calls them."""

    clients: str = Field("Clients", alias="Clients", min_length=1, description="The clients.")
    properties: str = Field(
        "ClientProperties", alias="ClientProperties", description="Their properties. Empty: not read."
    )
    redirect_uris: str = Field(
        "ClientRedirectUris", alias="ClientRedirectUris", description="Their redirect URIs. Empty: not read."
    )


class SqlSettings(Section):
    """A database, by SQLAlchemy. Exactly one of `url` and `url_file` is given, and one of `preset` and `query`."""

    url: DatabaseUrl | None = Field(
        None, description="`postgresql://…`, `mysql://…`, `mariadb://…`, `mssql://…` or `sqlite:///PATH`."
    )
    url_file: ExistingFile | None = Field(None, description="A file with the URL. It is read each time.")
    preset: Literal["duende"] | None = Field(
        None, description="The tables of a known server: `duende` (also IdentityServer4)."
    )
    query: str | None = Field(
        None, min_length=1, description="A SELECT whose columns bear the names of client metadata."
    )
    db_schema: str | None = Field(
        None, alias="schema", min_length=1, description="The schema of the preset's tables. Left out: the user's own."
    )
    tables: DuendeTables | None = Field(None, description="The preset's name of a table → yours.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        wrong = [
            f"needs {one} or {other}" + ("; it has both" if getattr(self, one) is not None else "")
            for one, other in (("url", "url_file"), ("preset", "query"))
            if (getattr(self, one) is None) == (getattr(self, other) is None)
        ]
        if self.query is not None:
            given = [name for name, value in (("schema", self.db_schema), ("tables", self.tables)) if value is not None]
            wrong += [f"{name} is for a preset; name the tables in query" for name in given]
        if wrong:
            raise ValueError("; ".join(wrong))
        return self
