"""The sources that the pages of identity servers show read what these servers write. Each document names its origin."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any, TypeAlias

import pytest
import yaml

from notifier.features.sources.source import Source
from notifier.features.sources.source_compiler import compile_sources
from notifier.model.record import copy_record
from tests.features.sources.source_documents import RECORDED, message, recorded, translated
from tests.features.sources.test_source_examples import placed
from tests.settings.whole_settings import SETTINGS

DOCS = Path(__file__).parents[3] / "docs"
PAGES = [*(DOCS / "identity-servers").glob("*.md"), DOCS / "publishing.md"]
# The names of issuers and realms in recorded documents, as the pages write them.
SPELLINGS = {
    "http://127.0.0.1:7480": "https://id.example.com",
    "http://127.0.0.1:7483": "https://id.example.com",
    "5f1c6b1e-3a0e-4f0e-9d43-0123456789ab": "REALM-ID",
    "https://localhost:9443/t/myorg.com": "https://is.example.com/t/carbon.super",
}

Ended: TypeAlias = tuple[str | None, str | None]
"""The `sub` and `sid` of an event."""


def sections_of(page: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the sections of each source on the page. Further sources of one name are numbered."""
    seen: dict[str, int] = {}
    for block in re.findall(r"^ *```yaml\n(.*?)^ *```$", page.read_text(), re.MULTILINE | re.DOTALL):
        sections = yaml.safe_load(dedent(block))
        for name, options in (sections.get("sources") or {}).items() if isinstance(sections, dict) else ():
            seen[name] = number = seen.get(name, 0) + 1
            yield f"{page.stem}: {name}{'' if number == 1 else f' {number}'}", {**sections, "sources": {name: options}}


SHOWN = {name: sections for page in sorted(PAGES) for name, sections in sections_of(page)}
ALICE: list[Ended] = [("00uALICE", None)]
SIGNED_OUT: list[Ended] = [("00uALICE", "102nZHzd")]
BY_OKTA = [*ALICE * 3, *SIGNED_OUT]
LOGOUT: list[Ended] = [("0e0e0e0e-1111-2222-3333-444444444444", "9c9c9c9c-1111-2222-3333-444444444444")]
OF_MASSTRANSIT: list[Ended] = [("248289761001", "08A5019C17D9F5B7")]
WSO2: list[Ended] = [("1801d35e-1339", None)]
AUTH0: list[Ended] = [("auth0|507f", "k3y5")]
HYDRA: list[Ended] = [(None, "8d1a191d-26b8-4ed4-b175-e5dcc24d0fa4")]
NOTHING: list[Ended] = []
OKTA = {"okta_hook/sign-out": SIGNED_OUT, "okta_hook/by-administrator": ALICE, "okta_hook/by-okta": BY_OKTA}
NO_END = ["admin-users-U3-federated-identity-google", "admin-users-U4-consents-shop", "admin-users-U5-consents-shop",
          "admin-users-U6-consents-logout", "admin-users-U7-reset-password", "admin-users-U8-impersonation",
          "admin-users-U9-credentials-C1", "admin-users-U10", "login", "logout-error"]  # fmt: skip
KEYCLOAK_LOGOUT = {"keycloak_rabbitmq/logout": LOGOUT, "keycloak_rabbitmq/admin-users-U1": NOTHING}
EVENTS: Mapping[str, Mapping[str, list[Ended]]] = {
    "auth0: auth0": {"auth0_stream/lines": AUTH0, "auth0_stream/array": AUTH0, "auth0_stream/object": AUTH0},
    "authentik: authentik": {"authentik/logout": [("5", None)], "authentik/impersonated": [("5", None)]},
    "duende-without-package: duende": {
        "duende/mt8.5.12-is8-masstransit-context": OF_MASSTRANSIT,
        "duende/is-8.0.3-user_logout": [("alice", "*")],
    },
    "duende-without-package: duende 2": {"duende/mt8.5.12-is8-client-default": OF_MASSTRANSIT},
    "home-grown: shop": {"": [("248289761001", "08a5019c")]},
    "hydra: hydra": {"hydra_logout/26.2.0": HYDRA},
    "identityserver4: identityserver4": {"duende/is4-4.1.2-user_logout": [("alice", "*")]},
    "identityserver4: identityserver4 2": {"identityserver4_v3/is4-3.1.4": [("248289761001", "08A5019C")]},
    "keycloak: keycloak": KEYCLOAK_LOGOUT,
    "keycloak: keycloak 2": {
        "keycloak_ssf/26.7.3-sign-out": [("727c4881-cbb9-43a1-b3f9-a8e527acff4f", "wJ95WhAT27O0VzY_my7aUTEn")],
        "keycloak_ssf/26.7.3-administrator": [("144583c7-934c-4609-a86d-d9b9b6af7043", None)],
    },
    "keycloak: keycloak_admin": {
        "keycloak_rabbitmq/admin-users-U1": [("U1", None)],
        "keycloak_rabbitmq/admin-users-U2-logout": [("U2", None)],
        "keycloak_rabbitmq/admin": [("u", None)],
        "keycloak_rabbitmq/admin-session": [(None, "S1")],
        **{f"keycloak_rabbitmq/{name}": NOTHING for name in NO_END},
    },
    "okta: okta": OKTA,
    "okta: okta 2": OKTA | {"okta_hook/by-administrator": ALICE * 4},
    "okta: okta 3": {
        "okta_hook/sign-out": [("alice@example.com", "102nZHzd")],
        "okta_hook/by-administrator": [("alice@example.com", None)],
        "okta_hook/by-okta": [*[("alice@example.com", None)] * 3, ("alice@example.com", "102nZHzd")],
    },
    "publishing: keycloak": KEYCLOAK_LOGOUT,
    "publishing: okta": OKTA,
    "publishing: wso2": {"wso2/is-7.2-super-tenant": WSO2 * 2},
    "wso2: wso2": {"wso2/is-7.2-super-tenant": WSO2 * 2, "wso2/session-presented": NOTHING},
}
OWN = {
    "type": "session.ended",
    "user": {"id": "248289761001"},
    "session": "08a5019c",
    "at": 1763719200123,
    "uuid": "u-1",
}


def shown_source(name: str) -> Source:
    """The source, compiled with the issuers of its block, or with those that it names."""
    sections = SHOWN[name]
    ((source_name, options),) = sections["sources"].items()
    named = [*(sections.get("issuers") or {}), options.get("issuer"), *(options.get("issuers") or {}).values()]
    named.append(((options.get("http") or {}).get("set") or {}).get("issuer"))
    if name == "publishing: wso2":  # its page shows the proof, and leaves the issuer to the reader
        options, named = (
            {**options, "issuers": {"https://is.example.com/t/carbon.super": "https://is.example.com"}},
            ["https://is.example.com"],
        )
    issuers = {iss: {"keys": [{"file": __file__}]} for iss in named if iss is not None}
    settings = {"issuers": issuers, "queue": {"url": "amqp://broker"}, "sources": {source_name: placed(options)}}
    sources, mistakes = compile_sources(SETTINGS.model_validate(settings))
    assert mistakes == []
    return sources[source_name]


def ends(by: Source, name: str) -> list[Ended]:
    """The session ends in a recorded document, with the names of the page."""
    realm = next(iter(by.issuers or {}), "")
    what = recorded(RECORDED / f"{name}.json") if name else message(OWN)
    text = what.body.decode()
    for recorded_name, page_name in SPELLINGS.items():
        text = text.replace(recorded_name, page_name)
    found = translated(by, copy_record(what, body=text.replace("REALM-ID", realm).encode()))
    assert found.wrong is None
    assert all(event.iss in by.speaks_for and event.clients for event in found.events)
    return [(event.sub, event.sid) for event in found.events]


def test_each_mapping_of_a_page_has_documents() -> None:
    """A new one needs a document as the system writes it, with its source."""
    assert sorted(SHOWN) == sorted(EVENTS)


@pytest.mark.parametrize(("name", "document"), [(name, each) for name in EVENTS for each in EVENTS[name]])
def test_a_mapping_of_a_page_reads_what_its_server_writes(name: str, document: str) -> None:
    """The user whose session ended, and the session if it is theirs; nothing else."""
    found = ends(shown_source(name), document)
    expected = [
        (sub, own if sid == "*" else sid) for (sub, sid), (_, own) in zip(EVENTS[name][document], found, strict=True)
    ]
    assert found == expected


@pytest.mark.parametrize("page", ["auth0", "authentik", "okta", "wso2"])
def test_a_page_without_real_documents_states_it_first(page: str) -> None:
    """In its first paragraph."""
    first = (DOCS / f"identity-servers/{page}.md").read_text().split("\n\n")[1]
    assert re.search(r"derived\s+from", first)
    assert re.search(r"[Nn]o\s+real", first)
    folders = {name.partition("/")[0] for names in EVENTS for name in EVENTS[names] if names.startswith(page)}
    documents = [json.loads(path.read_text()) for folder in folders for path in (RECORDED / folder).iterdir()]
    assert not any(document["emitted"] for document in documents)
