"""SQLAlchemy is an extra: only what asks a database of sessions needs it."""

import subprocess
import sys
from collections.abc import Mapping

import pytest

from notifier.features.upstreams.upstream_issuers import upstream_mistakes
from notifier.settings.service_settings import Settings
from tests.settings.whole_settings import SETTINGS

ISS = "https://login.example.com"
SQL = {"sql": {"url": "sqlite:///sessions.db", "preset": "duende"}}
EXTRAS = ("sqlalchemy", "psycopg", "pymysql", "pymssql", "opentelemetry", "django")
IMPORTED = "import sys, notifier.service.service, notifier.service.doctor_checks; print(*sys.modules)"


def _settings(resolve: Mapping[str, object]) -> Settings:
    upstream = {"issuer": "https://up.example.org", "client_id": "acme", "iss": ISS, "resolve": resolve}
    return SETTINGS.model_validate({"upstreams": {"partner": upstream}})


def test_a_database_without_the_library_is_refused_with_the_way_out() -> None:
    """At the start, and not at the first sign-out. Who asks over HTTP, or nobody, needs none."""
    mistakes = upstream_mistakes(_settings(SQL), frozenset({"issuers"}), lambda _: False)
    assert [each.path for each in mistakes] == ["upstreams.partner.resolve.sql"]
    assert "pip install 'logout-notifier[postgresql]'" in mistakes[0].text
    assert upstream_mistakes(_settings({"same_sub": {}}), frozenset({"issuers"}), lambda _: False) == []
    assert upstream_mistakes(_settings(SQL), frozenset({"issuers"})) == []


@pytest.mark.full
def test_the_service_starts_without_any_extra() -> None:
    """None of their libraries is imported with it."""
    done = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True)
    names = {name.partition(".")[0] for name in done.stdout.split()}
    assert "aiohttp" in names
    assert not names & set(EXTRAS)
