"""The settings of a database as a registry source."""

from typing import Literal, Self

from pydantic import Field, model_validator

from notifier.network.databases.database_url import DatabaseUrl
from notifier.settings.choices import find_choice_errors
from notifier.settings.secret_text import SecretPath
from notifier.settings.values import Section


class DuendeTables(Section):
    """The names of the tables, if they differ from Duende's."""

    clients: str = Field("Clients", alias="Clients", min_length=1)
    """The clients."""
    properties: str = Field("ClientProperties", alias="ClientProperties")
    """Their properties. Empty: not read."""
    redirect_uris: str = Field("ClientRedirectUris", alias="ClientRedirectUris")
    """Their redirect URIs. Empty: not read."""


class SqlSettings(Section):
    """A database, by SQLAlchemy. Exactly one of `url` and `url_file` is given, and one of `preset` and `query`."""

    url: DatabaseUrl | None = None
    """`postgresql://…`, `mysql://…`, `mariadb://…`, `mssql://…` or `sqlite:///PATH`."""
    url_file: SecretPath | None = None
    """A file with the URL. It is read each time."""
    preset: Literal["duende"] | None = None
    """The tables of a known server: `duende` (also IdentityServer4)."""
    query: str | None = Field(None, min_length=1)
    """A SELECT whose columns bear the names of client metadata."""
    db_schema: str | None = Field(None, alias="schema", min_length=1)
    """The schema of the preset's tables. Left out: the user's own."""
    tables: DuendeTables | None = None
    """The preset's name of a table → yours."""
    columns: Literal["all", "some"] = "all"
    """`some`: `Clients` is a view that may leave columns and the other tables out."""

    row_security: bool = False
    """PostgreSQL's row-level security decides which clients there are. Else a row that it hides fails the reading."""

    @model_validator(mode="after")
    def _check_alternatives(self) -> Self:
        errors = find_choice_errors(self, ("url", "url_file"), ("preset", "query"))
        if self.query is not None:
            of_presets = {"schema": self.db_schema, "tables": self.tables, "columns": self.columns == "some" or None}
            options = [name for name, value in of_presets.items() if value is not None]
            errors += [f"{name} is for a preset; name the tables in query" for name in options]
        if errors:
            raise ValueError("; ".join(errors))
        return self
