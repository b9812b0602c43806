"""Build the reader of a registry source that is not a file, and read the source `http`: a JSON list at a URL."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from notifier.configuration.clients.client_rows import ClientsReader, SourceAnswer, ValidatingReader
from notifier.configuration.clients.remote_rows import RowCollector
from notifier.features.registries.auth0 import Auth0Tenant
from notifier.features.registries.authentik import collect_authentik
from notifier.features.registries.hydra import collect_hydra
from notifier.features.registries.keycloak_reader import KeycloakSettings, collect_keycloak
from notifier.features.registries.list_settings import (
    Auth0Settings,
    AuthentikSettings,
    HttpListSettings,
    HydraSettings,
    SqlSettings,
    Wso2Settings,
)
from notifier.features.registries.page_requests import EndlessListError, PageLimit, WebReader, ask, next_page_url
from notifier.features.registries.wso2 import Wso2Server
from notifier.model.errors import AnswerFault, ConfigurationError, InputIssue, SourceFault
from notifier.network.http.json_client import JsonAnswer, JsonWeb
from notifier.settings.registry_settings import RegistrySourceSettings

_ADVICE = {
    401: "the server wants credentials; set `headers`, such as {Authorization: {file: PATH}}",
    403: "the server refuses us; check `headers`",
    404: "there is no list; check `url`",
}


def build_validating_reader(source: RegistrySourceSettings) -> ClientsReader:
    """Return a reader of the source that checks its answers."""
    return ValidatingReader(build_reader(source), source)


def build_reader(source: RegistrySourceSettings) -> ClientsReader:
    """Return the reader of a source. Raises ConfigurationError if its library is not installed."""
    settings, within = getattr(source, source.kind), source.timeout
    match settings:
        case KeycloakSettings():
            return WebReader(partial(collect_keycloak, settings, source.issuer), settings.tls, within)
        case HydraSettings():
            return WebReader(partial(collect_hydra, settings), settings.tls, within)
        case HttpListSettings():
            return WebReader(partial(collect_http_list, settings), settings.tls, within)
        case Wso2Settings():
            return WebReader(Wso2Server(settings).collect, settings.tls, within)
        case Auth0Settings():
            return WebReader(Auth0Tenant(settings).collect, None, within)
        case AuthentikSettings():
            return WebReader(partial(collect_authentik, settings), settings.tls, within)
    try:
        from notifier.features.registries.sql import SqlReader  # noqa: PLC0415  SQLAlchemy is an extra
    except ModuleNotFoundError as error:
        text = f"needs {error.name}: pip install 'logout-notifier[postgresql]', or [mysql], [mssql] or [sql] (SQLite)"
        raise ConfigurationError([InputIssue(f"registry.sources.{source.source_name}.sql", text)]) from None
    return SqlReader(source.of_kind(SqlSettings), within)


async def collect_http_list(settings: HttpListSettings, server: JsonWeb, last: SourceAnswer | None) -> RowCollector:
    """Return all clients of a list of client metadata (RFC 7591), in one or several pages. Raises SourceFault."""
    headers = {"Accept": "application/json", **(settings.headers or {})}
    collector, visited, limit = RowCollector(last, unique=True), set[str](), PageLimit()
    url: str | None = settings.url
    while url is not None:
        if url in visited:
            raise EndlessListError("its list never ends: a page comes again (Link: rel=next)")
        if visited:
            limit.on_next_page(collector.known_count)
        visited.add(url)
        try:
            answer = await ask(server, url, headers, _ADVICE)
        except AnswerFault as fault:
            remedy = "; YAML is not read: serve the list as JSON" if str(fault).endswith("not JSON") else ""
            raise AnswerFault(f"{fault}{remedy}") from None
        await collector.add_all(_pop_each(_clients_in(answer)))
        url = next_page_url(answer.joined_header("Link"), url)
    return collector


def _pop_each(clients: list[Any]) -> Iterator[Any]:
    """Yield the clients, and free each before the next. To free all at once would block the event loop."""
    clients.reverse()
    while clients:
        yield clients.pop()


def _clients_in(answer: JsonAnswer) -> list[Any]:
    """Return the list of clients in a response. Raises SourceFault if there is no list."""
    content = answer.content
    if isinstance(content, dict) and "clients" in content:
        content = content["clients"]
    if not isinstance(content, list):
        what = "is empty; it must be [] if there are no clients" if content is None else "is not a list of clients"
        raise SourceFault(f"the answer {what}")
    return content
