"""Presets read the messages of real servers. tests/recorded/sources/README.md has their origin."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from notifier.features.sources.source_presets import SOURCE_PRESETS
from notifier.model.record import copy_record
from notifier.model.session_ended import ClientEntry
from tests.features.sources.source_documents import DEMO, ISS, RECORDED, message, recorded, refused, source, translated
from tests.features.sources.test_guides import EVENTS

SHOP_AND_MAIL = {"sub": "248289761001", "sid": "08A5019C17D9F5B7", "clients": ("shop", "mail"), "iss": ISS}
OF_HOST = {"sub": "alice", "clients": ("bc1", "bc2", "nosid", "plain", "front")}
UNTOLD = frozenset({"masstransit-null-members", "terminated_no_client"})  # sessions without clients
HOSTS = ("http://127.0.0.1:7480", "http://127.0.0.1:7483")
DUENDE = sorted(path.stem for path in (RECORDED / "duende").iterdir())


def read(preset: str, name: str, **given: Any) -> list[dict[str, Any]]:
    """The events in the recorded message: the members that are set."""
    found = translated(source(preset=preset, **given), recorded(RECORDED / preset / f"{name}.json"))
    assert found.wrong is None
    names = ("id", "iss", "sub", "sid", "clients", "ended_at", "reason")
    return [{each: value for each in names if (value := getattr(event, each)) is not None} for event in found.events]


@pytest.mark.parametrize("name", DUENDE)
def test_contexts_of_duende_are_read_whatever_serialized_them(name: str) -> None:
    """Four versions, MassTransit and bare, camel, Pascal and snake case, reasons as numbers and names, CloudEvents."""
    if name.endswith("masstransit-xml"):
        why = refused(source(preset="duende"), recorded(RECORDED / "duende" / f"{name}.json"))
        assert "is XML (application/vnd.masstransit+xml)" in why["sources.shop"]
        return
    events = read("duende", name, issuers={ISS: ISS, **dict.fromkeys(HOSTS, ISS)})
    if name.partition("-is7.4.8-")[2] in UNTOLD or any(name.endswith(each) for each in UNTOLD):
        assert events == []
        return
    (event,) = events
    assert event["id"] != "made-up"
    if name.startswith("is"):  # the host's contexts: the older ones name no issuer
        assert event.items() >= {"sub": "alice", "iss": event["iss"]}.items()
        assert set(event["clients"]) <= set(OF_HOST["clients"])
        assert event["iss"] == ISS
        assert event.get("reason") == (None if name.startswith("is4") else name.rpartition("-")[2])
    elif name == "nservicebus":
        assert event["clients"] == ("shop",)
    else:
        assert event["sub"], event["sid"] == (SHOP_AND_MAIL["sub"], SHOP_AND_MAIL["sid"])
        assert event["clients"] in (("shop", "mail"), ("shop",))
        assert event.get("reason") in ("user_logout", None)


def test_the_id_and_the_time_of_duende_are_the_envelope_s() -> None:
    """MassTransit's `messageId` and `sentTime`, CloudEvents' `id` and `time`."""
    (event,) = read("duende", "mt8.4.0-is7.4.8-masstransit-pascal-enum-names")
    assert event == SHOP_AND_MAIL | {
        "id": "7f2c0000-667c-e6df-1634-08df47ced5c9", "ended_at": 1795265778.546027, "reason": "user_logout",
    }  # fmt: skip
    (event,) = read("duende", "mt8.4.0-is7.4.8-client-cloudevents-binary")
    assert (event["id"], event["ended_at"]) == ("e-1", 1795255200.123456)


def test_a_bare_context_has_the_same_id_however_it_is_spelled() -> None:
    """Without an id of the message, the id is derived from the content."""
    spellings = ("client-default", "client-snake", "client-web", "client-web-enum-names")
    assert len({read("duende", f"mt8.4.0-is7.4.8-{name}")[0]["id"] for name in spellings}) == 1


def test_the_id_of_nservicebus_is_read_from_its_header() -> None:
    """By an expression."""
    (event,) = read("duende", "nservicebus", event={"id": '"$headers"."NServiceBus.MessageId"'})
    assert (event["id"], event["sub"], event["clients"]) == ("9f3c", "248289761001", ("shop",))


REALMS = {"issuer": None, "issuers": {"5f1c6b1e-3a0e-4f0e-9d43-0123456789ab": DEMO, "demo": DEMO}}
KEYCLOAK = {
    "iss": DEMO, "sub": "0e0e0e0e-1111-2222-3333-444444444444", "sid": "9c9c9c9c-1111-2222-3333-444444444444",
    "clients": "*", "ended_at": 1763719200.123,
}  # fmt: skip
SSF = {"iss": ISS, "id": "3d0c3cf7", "sub": "0e0e0e0e", "sid": "9c9c9c9c", "clients": "*", "ended_at": 1763719200.0}
ALL_SESSIONS = {name: value for name, value in SSF.items() if name != "sid"}
OF_26_7_3 = {"iss": DEMO, "clients": "*"}
WSO2 = {"iss": ISS, "sub": "1801d35e-1339", "ended_at": 1755541966.644}
AUTH0 = {
    "iss": ISS, "sub": "auth0|507f", "sid": "k3y5", "clients": "*", "ended_at": 1767225600.123,
    "id": "90020260101000000000000000000000000001",
}  # fmt: skip
OKTA = {"iss": ISS, "sub": "00u1", "sid": "102LvW", "clients": "*", "ended_at": 1767225600.123, "id": "u-1"}
OF_ALICE = {"iss": ISS, "sub": "00uALICE", "clients": "*", "ended_at": 1795860000.843}
HYDRA = {
    "iss": ISS, "sid": "8d1a191d-26b8-4ed4-b175-e5dcc24d0fa4", "clients": ("e", "a"),
    "id": "bebc6bc9-c0ec-4847-b0c7-c7487a447345",
}  # fmt: skip
V3 = {
    "iss": ISS, "sub": "248289761001", "sid": "08A5019C",
    "clients": (
        ClientEntry(
            client_id="shop", backchannel_logout_uri="https://shop.example.com/bc",
            backchannel_logout_session_required=True,
        ),
        ClientEntry(client_id="mail", backchannel_logout_session_required=False, no_address=True),
    ),
}  # fmt: skip
OTHERS: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "identityserver4_v3/is4-3.1.4": ({}, [V3]),
    "keycloak_rabbitmq/logout": (REALMS, [KEYCLOAK]),
    "keycloak_rabbitmq/logout-realm-name": (REALMS, [KEYCLOAK]),
    "keycloak_rabbitmq/login": (REALMS, []),
    "keycloak_rabbitmq/logout-error": (REALMS, []),
    "keycloak_rabbitmq/admin": (REALMS, []),
    "keycloak_ssf/session": ({}, [SSF]),
    "keycloak_ssf/sse-caep": ({}, [SSF]),
    "keycloak_ssf/jws": ({}, [SSF]),
    "keycloak_ssf/all-sessions": ({}, [ALL_SESSIONS]),
    "keycloak_ssf/verification": ({}, []),
    "keycloak_ssf/26.7.3-sign-out": (
        {"issuer": DEMO},
        [
            OF_26_7_3
            | {"id": "03b7fd5f-5223-7ed2-7822-b8b57e4f47eb", "sub": "727c4881-cbb9-43a1-b3f9-a8e527acff4f"}
            | {"sid": "wJ95WhAT27O0VzY_my7aUTEn", "ended_at": 1795340364.0}
        ],
    ),
    "keycloak_ssf/26.7.3-administrator": (
        {"issuer": DEMO},
        [
            OF_26_7_3
            | {"id": "34308275-2507-cb56-61a7-e2a8f8224d12", "sub": "144583c7-934c-4609-a86d-d9b9b6af7043"}
            | {"ended_at": 1795340366.0}
        ],
    ),
    "wso2/is-7.2-two-sessions": (
        {"issuers": {"https://localhost:9443/t/myorg.com": ISS}},
        [
            WSO2 | {"id": "61503199-bdf7:s-1", "clients": ("eb395ddd-1280", "40d982e5-23be")},
            WSO2 | {"id": "61503199-bdf7:s-3", "clients": ("eb395ddd-1280",)},
        ],
    ),
    "wso2/asgardeo": (
        {"issuers": {"https://api.asgardeo.io/t/myorg": DEMO}},
        [WSO2 | {"iss": DEMO, "id": "61503199-bdf7:s-1", "clients": ("eb395ddd-1280",)}],
    ),
    "wso2/session-presented": ({}, []),
    "hydra_logout/26.2.0": ({}, [HYDRA]),
    "hydra_logout/no-clients": ({}, []),
    "auth0_stream/lines": ({}, [AUTH0]),
    "auth0_stream/array": ({}, [AUTH0]),
    "auth0_stream/object": ({}, [AUTH0]),
    "auth0_stream/one-without-session": ({}, [{name: value for name, value in AUTH0.items() if name != "sid"}]),
    "okta_hook/two-events": ({}, [OKTA]),
    "okta_hook/sign-out": ({}, [OF_ALICE | {"id": "u-1", "sid": "102nZHzd"}]),
    "okta_hook/by-administrator": ({}, [OF_ALICE | {"id": "u-5"}]),
    "okta_hook/by-okta": (
        {},
        [*(OF_ALICE | {"id": f"u-{number}"} for number in (6, 7, 8)), OF_ALICE | {"id": "u-9", "sid": "102nZHzd"}],
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_documents_of_other_servers_are_read(name: str) -> None:
    """The session ends in them, and nothing else."""
    given, expected = OTHERS[name]
    preset, _, document = name.partition("/")
    found = read(preset, document, **given)
    for event, wanted in zip(found, expected, strict=True):
        made = {} if "id" in wanted else {"id": event["id"]}
        clients = {"clients": tuple(dict.fromkeys(event["clients"]))} if preset == "hydra_logout" else {}
        assert event | clients == wanted | made
        assert event["id"] != "made-up"


@pytest.mark.parametrize("session", [{"session_id": "k3y5"}, {"details": {"session_id": "k3y5"}}])
@pytest.mark.parametrize(
    "form",
    [
        lambda entry: entry,
        lambda entry: {"log_id": entry["log_id"], "data": entry},
        lambda entry: {"detail-type": "Auth0 log", "detail": {"log_id": entry["log_id"], "data": entry}},
        lambda entry: [entry],
        lambda entry: {"logs": [{"detail": entry}]},
    ],
    ids=["Management API", "log stream", "EventBridge", "list", "flat in logs"],
)
def test_auth0_writes_a_log_entry_in_three_forms(form: Callable[[Any], Any], session: dict[str, Any]) -> None:
    """The same sign-out by each way."""
    id_ = AUTH0["id"]
    entry = {"type": "slo", "user_id": "auth0|507f", "date": "2026-01-01T00:00:00.123Z", "log_id": id_, **session}
    by = source(preset="auth0_stream")
    (event,) = translated(by, message(form(entry))).events
    assert {name: getattr(event, name) for name in AUTH0} == AUTH0
    assert translated(by, message(form(entry | {"type": "s"}))).ignored == 1


@pytest.mark.parametrize("preset", SOURCE_PRESETS)
@pytest.mark.parametrize("document", [{}, {"unknown": 1}, {"sub": "alice", "userId": "alice", "sid": "s"}])
def test_a_document_without_the_deciding_member_is_malformed(preset: str, document: dict[str, Any]) -> None:
    """A server that has changed its form would else lose every logout without a line in the log."""
    assert refused(source(preset=preset), message(document))


@pytest.mark.parametrize("value", [None, [], "text", 7, True])
@pytest.mark.parametrize("name", ["keycloak_ssf/session", "wso2/is-7.2-super-tenant"])
def test_an_event_of_a_token_that_is_no_object_is_malformed(name: str, value: object) -> None:
    """RFC 8417 §2.2. As null it was ignored, as an event of another kind is."""
    preset = name.partition("/")[0]
    document = json.loads(recorded(RECORDED / f"{name}.json").body)
    document["events"] = dict.fromkeys(document["events"], value) | {"urn:other": {}}
    why = refused(source(preset=preset), message(document))
    assert "must give" in why[f"sources.shop.{'when' if preset == 'keycloak_ssf' else 'envelope'}"]


@pytest.mark.parametrize(
    ("preset", "document"),
    [
        ("keycloak_ssf", {"events": {}}),
        ("keycloak_ssf", {"events": {"urn:other": {}}}),
        ("auth0_stream", {"logs": []}),
        ("auth0_stream", []),
        ("okta_hook", {"data": {"events": [{"eventType": "user.session.start"}]}}),
    ],
)
def test_a_document_of_another_kind_is_ignored(preset: str, document: object) -> None:
    """It has the member that decides, or it is a list of nothing."""
    found = translated(source(preset=preset), message(document))
    assert (found.events, found.wrong) == ((), None)


@pytest.mark.parametrize("preset", ["keycloak_rabbitmq", "keycloak_ssf", "wso2"])
def test_an_operators_own_condition_replaces_that_of_the_preset(preset: str) -> None:
    """Also for what lacks the member that decides."""
    found = translated(source(preset=preset, when="colour == 'blue'"), message({}))
    assert (found.events, found.wrong) == ((), None)


def test_every_recorded_document_has_its_origin() -> None:
    """And each preset has some."""
    documents = [json.loads(path.read_text()) for path in RECORDED.glob("*/*.json")]
    assert all(isinstance(document["emitted"], bool) and document["note"] for document in documents)
    folders = {path.name for path in RECORDED.iterdir() if path.is_dir()}
    assert folders == {*SOURCE_PRESETS, "authentik"}  # which has a mapping in its guide
    listed = {f"{path.parent.name}/{path.stem}" for path in RECORDED.glob("*/*.json") if path.parent.name != "duende"}
    of_guides = {name for names in EVENTS.values() for name in names if name and not name.startswith("duende/")}
    assert listed == {*OTHERS, *of_guides}


@pytest.mark.parametrize("simple", [True, False])
def test_keycloaks_token_of_another_issuers_user_is_refused(simple: bool) -> None:
    """Its subject names a separate issuer, beside the token's."""
    message = recorded(RECORDED / "keycloak_ssf/session.json")
    document = json.loads(message.body)
    user = {"format": "iss_sub", "iss": "https://other.example.com", "sub": "alice"}
    document["sub_id"] = user if simple else {**document["sub_id"], "user": user}
    why = refused(source(preset="keycloak_ssf"), copy_record(message, body=json.dumps(document).encode()))
    assert "the document names https://other.example.com; this source speaks for" in str(why)
