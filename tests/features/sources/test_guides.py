"""The sources that the pages of identity servers show read what these servers write. Each document names its origin."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any, TypeAlias

import pytest
import yaml

from notifier.features.sources.source import Source
from notifier.features.sources.source_compiler import compile_sources
from notifier.model.record import copy_record
from tests.features.sources.source_documents import RECORDED, message, recorded, refused, source, translated
from tests.features.sources.test_source_examples import EXAMPLES, placed, shown
from tests.settings.whole_settings import SETTINGS

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = [*DOCS.rglob("*.md"), *(ROOT / "publishers").glob("*/README.md"), ROOT / "README.md"]
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
BESIDE_ITS_MESSAGE = {f"sources: {name}" for heading in EXAMPLES for name in shown(heading)[0]}  # test_source_examples
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
    "sources: duende": {"duende/mt8.5.12-is8-masstransit-context": OF_MASSTRANSIT},
    "sources: shop": {"": [("248289761001", "08a5019c")]},
    "wso2: wso2": {"wso2/is-7.2-super-tenant": WSO2 * 2, "wso2/session-presented": NOTHING},
}
# Pages of documents that the reader's own code writes as the page says; Hydra's has ids of a real one.
DEFINES_ITS_DOCUMENTS = {"home-grown", "hydra"}
PROSE: Mapping[str, tuple[str, Callable[[bytes], bytes], Mapping[str, str]]] = {
    "event: {sub: userid}": (
        "mt8.5.12-is8-masstransit-context",
        lambda body: body.replace(b"subjectId", b"userId"),
        {"sub": "248289761001"},
    ),
    """event: {id: '"$headers"."NServiceBus.MessageId"'}""": (
        "nservicebus",
        lambda body: body,
        {"id": "9f3c"},
    ),
}
OWN = {
    "type": "session.ended",
    "user": {"id": "248289761001"},
    "session": "08a5019c",
    "at": 1763719200123,
    "uuid": "u-1",
}


def shown_source(name: str) -> Source:
    """The source, compiled with the issuers of its block, or with the issuers that it names."""
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
    assert sorted(SHOWN.keys() - BESIDE_ITS_MESSAGE) == sorted(EVENTS)
    in_prose = {text for page in PAGES for text in re.findall(r"`(event: \{.*?\})`", page.read_text())}
    assert in_prose == PROSE.keys()


@pytest.mark.parametrize(("name", "document"), [(name, each) for name in EVENTS for each in EVENTS[name]])
def test_a_mapping_of_a_page_reads_what_its_server_writes(name: str, document: str) -> None:
    """The user whose session ended, and the session if it is theirs; nothing else."""
    found = ends(shown_source(name), document)
    expected = [
        (sub, own if sid == "*" else sid) for (sub, sid), (_, own) in zip(EVENTS[name][document], found, strict=True)
    ]
    assert found == expected


@pytest.mark.parametrize("text", PROSE)
def test_a_mapping_in_prose_reads_what_its_server_writes(text: str) -> None:
    """It is added to the preset `duende`."""
    document, change, expected = PROSE[text]
    by = source(preset="duende", **yaml.safe_load(text))
    what = recorded(RECORDED / f"duende/{document}.json")
    (event,) = translated(by, copy_record(what, body=change(what.body))).events
    assert expected.items() <= {"sub": event.sub, "id": event.id}.items()


@pytest.mark.parametrize("member", ["username", "email"])
@pytest.mark.parametrize("document", ["logout", "impersonated"])
def test_other_subject_modes_of_authentik(member: str, document: str) -> None:
    """By the expression of the page."""
    expression = f"default(user.on_behalf_of, user).{member}"
    assert f"`{expression}`" in (DOCS / "identity-servers/authentik.md").read_text()
    by = source(event={"sub": expression, "clients": "'*'"})
    (event,) = translated(by, recorded(RECORDED / f"authentik/{document}.json")).events
    assert event.sub == {"username": "alice", "email": "alice@example.com"}[member]


SIGN_OUT: dict[str, Any] = {
    "uuid": "u-1",
    "eventType": "user.session.end",
    "actor": {"id": "00uADMIN", "type": "User", "alternateId": "00uADMIN"},
    "authenticationContext": {"externalSessionId": "S"},
}
SHOP: Mapping[str, str] = {"type": "AppInstance", "id": "0oaSHOP"}
BOB: Mapping[str, str] = {"type": "User", "id": "00uBOB", "alternateId": "00uBOB"}


@pytest.mark.parametrize("name", ["okta: okta", "okta: okta 2", "okta: okta 3"])
@pytest.mark.parametrize("targets", [{}, {"target": None}, {"target": []}, {"target": [SHOP]}])
def test_who_ends_a_session_of_okta_without_a_user_as_target_signs_out(name: str, targets: dict[str, Any]) -> None:
    """It is the session's own user."""
    document = {"data": {"events": [SIGN_OUT | targets]}}
    (event,) = translated(shown_source(name), message(document)).events
    assert (event.sub, event.sid) == ("00uADMIN", "S")


@pytest.mark.parametrize("name", ["okta: okta", "okta: okta 2", "okta: okta 3"])
@pytest.mark.parametrize(
    "change",
    [
        {"target": BOB},
        {"target": {}},
        {"target": "00uBOB"},
        {"target": [{"type": "User"}]},
        {"target": [{**BOB, "type": "user"}]},
        {"target": [{"id": "00uBOB"}]},
        {"target": [None]},
        {"target": [SHOP, {"type": "User"}]},
        {"target": [BOB, {**BOB, "id": "00uEVE"}]},
        {"actor": {"id": "okta", "type": "SystemPrincipal"}},
    ],
)
def test_who_ends_a_session_of_okta_is_not_signed_out_instead_of_another(name: str, change: dict[str, Any]) -> None:
    """An event about another user, in a form that Okta does not document, becomes a dead letter."""
    assert refused(shown_source(name), message({"data": {"events": [SIGN_OUT | change]}}))


@pytest.mark.parametrize("kind", ["user.session.clear", "user.lifecycle.suspend", "user.lifecycle.deactivate"])
def test_an_administrator_who_acts_on_an_unnamed_user_of_okta_is_not_signed_out(kind: str) -> None:
    """Only a sign-out may be without a target."""
    document = {"data": {"events": [SIGN_OUT | {"eventType": kind, "target": None}]}}
    assert refused(shown_source("okta: okta 2"), message(document))


@pytest.mark.parametrize("impersonated", [{}, {"pk": None}, {"username": "bob"}, False, "bob"])
def test_an_administrator_who_impersonates_in_authentik_is_not_signed_out_instead(impersonated: object) -> None:
    """Without a key of the other user the event becomes a dead letter."""
    document = {"id": "1", "user": {"pk": 1, "on_behalf_of": impersonated}, "at": "2026-11-29T00:00:00Z"}
    assert refused(shown_source("authentik: authentik"), message(document))


def is_emitted(name: str) -> bool:
    """Whether a real program sent it, or the reader's own (the name is empty)."""
    emitted: bool = not name or json.loads((RECORDED / f"{name}.json").read_text())["emitted"]
    return emitted


@pytest.mark.parametrize("page", sorted({name.partition(":")[0] for name in EVENTS} - DEFINES_ITS_DOCUMENTS))
def test_a_page_without_real_documents_states_it_first(page: str) -> None:
    """In its first paragraph, for each mapping that was never run on a document of the real system."""
    derived = [name for name in EVENTS if name.startswith(f"{page}:") and not any(map(is_emitted, EVENTS[name]))]
    (file,) = (file for file in PAGES if file.stem == page)
    first = file.read_text().split("\n\n")[1]
    is_stated = re.search(r"(derived|put\s+together)\s+from", first) and re.search(r"\b([Nn]or?|not)\b", first)
    assert is_stated or not derived
