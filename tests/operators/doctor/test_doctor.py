"""Test what the doctor reports for each observation: the level, and a text with the remedy."""

import asyncio
import base64
import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from notifier.delivery.channels import BackChannel
from notifier.model.client import (
    Algorithm,
    Client,
    ClientKeysSource,
    Encryption,
    FrontChannelClient,
    KeyManagement,
    RetryPolicy,
    Route,
    SubjectMode,
    TokenProfile,
)
from notifier.model.errors import InternalFault
from notifier.model.message import Depth, PolicyKey
from notifier.model.moment import format_moment_for_people
from notifier.model.outcome import Cause, HttpResponse, Reason, StaleConnection, TransportFailure, TransportResult
from notifier.model.pauses import Pause, PauseDocument
from notifier.model.registry import Registry
from notifier.model.request import Request
from notifier.model.trouble import Trouble
from notifier.network.http.issuer_document import (
    DocumentIssue,
    IssuerDocument,
    find_only_issuer,
    is_for_tests,
    metadata_uri,
)
from notifier.network.http.probe import ReachedAddress, ReachFailure
from notifier.operators.doctor.canary import CANARY_SUBJECT_PREFIX, CanaryTools, send_canary
from notifier.operators.doctor.doctor import (
    MAX_CONCURRENT_CHECKS,
    Area,
    Check,
    Finding,
    Severity,
    examine,
    failure,
    ok,
    warning,
)
from notifier.operators.doctor.doctor_clients import examine_server, judge_registry, servers_of
from notifier.operators.doctor.doctor_keys import (
    ExaminedIssuer,
    examine_issuer,
    examine_keys,
    judge_jwks,
    judge_keys,
    judge_transmitter,
    key_sources_of,
)
from notifier.operators.doctor.doctor_queue import (
    MAX_LISTED_PAUSES,
    clock_finding,
    examine_queue,
    judge_broker,
    judge_file,
    judge_pauses,
)
from notifier.operators.doctor.doctor_workers import DAY_SECONDS, Statuses, judge_workers
from notifier.operators.status.client_status import ClientStatus
from notifier.operators.status.service_status import WorkerState, dump_state, status_of
from notifier.queues.queue_state import BrokerState, FileState
from notifier.queues.sqlite.options import SqliteOptions
from notifier.queues.sqlite.queue import SqliteQueue
from notifier.tokens.first_day import SeenKey, merge_seen_keys
from notifier.tokens.foreign_keys import read_jwks
from notifier.tokens.published_keys import Signing
from tests.cli.in_process import notifier
from tests.system.site import Site
from tests.tokens.encryption_keys import keys, made, public

ISS = "https://id.example"
JWKS = f"{ISS}/jwks"
NOW = 1_800_000_000.0
COORDINATE = f"{'A' * 42}E"  # 32 bytes
EC = {"kty": "EC", "crv": "P-256", "x": COORDINATE, "y": COORDINATE, "kid": "k1"}
SLOW = {"kty": "RSA", "kid": "slow", "n": "A" + "_" * 350, "e": "_" * 350}
GOOD = {
    "issuer": ISS,
    "jwks_uri": JWKS,
    "backchannel_logout_supported": True,
    "backchannel_logout_session_supported": True,
}
WELL = BrokerState(
    prefix="n", declares=True, version="3.10.8", may_configure=True, may_write=True, may_read=True, blocked=False
)


def levels(found: Sequence[Finding]) -> set[Severity]:
    return {finding.level for finding in found}


def bad(found: Sequence[Finding]) -> str:
    """Return all warnings and failures in one line; each must have advice."""
    wrong = [finding for finding in found if finding.level is not Severity.OK]
    assert all(finding.advice for finding in wrong)
    return " | ".join(f"{finding.level}: {finding.text}" for finding in wrong)


# ── the queue ──


@pytest.mark.parametrize(
    ("changes", "declares", "words"),
    [
        ({}, True, ""),
        ({"may_configure": False}, False, ""),
        ({"may_configure": False, "may_announce": False}, False, "warning: the user may not configure n.worker.*"),
        ({"may_configure": False}, True, "may not configure"),
        ({"may_write": False}, True, "amq.default"),
        ({"may_read": False}, True, "may not read"),
        ({"blocked": True}, True, "alarm"),
        ({"keeps_expired": True}, True, ""),
        ({"keeps_expired": False}, True, "failed: drops messages that expire"),
        ({"policies": ()}, True, ""),
        (
            {"policies": (PolicyKey.MAX_LENGTH,)},
            True,
            "failed: a policy sets max-length on our queues: a full queue",
        ),
        ({"policies": "it is away"}, True, "warning: its policies are unknown: it is away"),
        ({"missing": ("queue n.dead",)}, True, "warning: not declared yet"),
        ({"missing": ("queue n.dead",)}, False, "failed: missing"),
        ({"missing": ("queue n.parked-large-00.delay.1024s",)}, False, "warning: missing"),
        ({"missing": ("queue n.pauses",)}, False, "warning: missing: queue n.pauses"),
        ({"missing": ("queue n.dead", "queue n.parked-large-00.delay.1024s")}, False, "failed: missing"),
        ({"different": ("queue n.dead: argument",)}, True, "failed: queue n.dead"),
        ({"version": "3.9.1"}, True, "warning: is version 3.9.1"),
        ({"version": "4.2.0"}, True, ""),
    ],
)
def test_a_broker(changes: dict[str, object], declares: bool, words: str) -> None:
    """A condition that stops a worker fails. A condition that a worker repairs, or an untested one, is a warning."""
    state = replace(WELL, declares=declares, **changes)  # type: ignore[arg-type]
    findings = bad(list(judge_broker(state, "mq")))
    assert words in findings
    assert bool(findings) == bool(words)


@pytest.mark.parametrize(("ahead", "level"), [(1, Severity.OK), (-20, Severity.WARNING), (60, Severity.FAILED)])
def test_clocks_that_differ(ahead: float, level: Severity) -> None:
    """R10, and receivers that refuse an `iat` older than 30 s."""
    assert clock_finding("id", ahead).level is level


def test_a_file() -> None:
    """Complete, missing or unusable."""
    path = Path("q.db")
    assert levels(list(judge_file(FileState(path=path, size=None, worker=False)))) == {Severity.OK}
    assert levels(list(judge_file(FileState(path=path, size=9, worker=True)))) == {Severity.OK}
    assert "damaged" in bad(list(judge_file(FileState(path=path, size=9, worker=True, fault="damaged"))))


def paused(client_id: str = "shop", hours: float = 1, **changes: Any) -> Pause:
    """Return a pause that began now."""
    pause = Pause(
        id=client_id, iss=ISS, client_id=client_id, who="alice", reason="deploy", since=NOW, until=NOW + hours * 3600
    )
    return replace(pause, **changes)


def test_paused_clients() -> None:
    """Those in force, at most for the `max_paused` of their client; beyond some, their number."""
    registry = Registry(clients={ISS: {"mail": client("mail", retry=RetryPolicy(max_paused=3600.0))}})
    pauses = (paused(), paused("mail", hours=2), paused("wiki", ended_at=NOW), paused("news", hours=-1))
    shop, mail = judge_pauses(PauseDocument(version=1, pauses=pauses), registry, NOW)
    assert (shop.subject, shop.level) == ("shop", Severity.WARNING)
    assert shop.text.startswith("is paused by alice until ")
    assert shop.text.endswith(": deploy")
    assert f"notifier resume --client-id shop --iss {ISS} ends it" in shop.advice
    [quoted] = judge_pauses(PauseDocument(version=1, pauses=(paused("a b; c"),)), registry, NOW)
    assert "notifier resume --client-id 'a b; c' --iss" in quoted.advice
    assert format_moment_for_people(NOW + 3600.0) in mail.text
    numbers = range(MAX_LISTED_PAUSES + 5)
    many = PauseDocument(version=1, pauses=tuple(paused(f"c{number}", hours=number + 1) for number in numbers))
    *listed, rest = judge_pauses(many, registry, NOW)
    assert [finding.subject for finding in listed] == [f"c{number}" for number in range(MAX_LISTED_PAUSES)]
    assert rest.text == "5 more clients are paused"


async def test_pauses_of_a_file_are_reported(tmp_path: Path) -> None:
    """By the doctor, which opens the file for them; a document of a later release is a failure."""
    queue = SqliteQueue(SqliteOptions(path=tmp_path / "q.db"))
    await queue.open()
    await queue.wait_until_ready()
    await queue.register.change(lambda document: document.pause_clients([paused()], NOW))
    await queue.close()
    _, pause = await examine_queue(queue, "q.db", Registry(), lambda: NOW)
    assert pause.text.startswith("is paused by alice")
    with closing(sqlite3.connect(tmp_path / "q.db")) as database, database:
        database.execute("UPDATE register SET document = ?", (b'{"v": 2, "version": 9, "pauses": []}',))
    _, unread = await examine_queue(queue, "q.db", Registry(), lambda: NOW)
    assert (unread.level, unread.subject) == (Severity.FAILED, "pauses")
    assert "a later release wrote the pauses" in unread.text


# ── issuers ──


async def issuer(
    metadata: object = GOOD, keys: object = (EC,), *, jwks_uri: str | None = JWKS, used: int = 3, date: float = NOW
) -> list[Finding]:
    def document(content: object) -> IssuerDocument | DocumentIssue:
        return content if isinstance(content, DocumentIssue) else IssuerDocument(content=content, date=date)

    documents = {
        metadata_uri(ISS): document(metadata),
        JWKS: document({"keys": list(keys)} if isinstance(keys, tuple) else keys),
    }

    async def read(uri: str) -> IssuerDocument | DocumentIssue:
        return documents[uri]

    key = Signing(alg=Algorithm.ES256, public=EC)
    coming = Signing(alg=Algorithm.ES256, public={**EC, "kid": "k2"})
    counted = {Algorithm.ES256: used} if used else {Algorithm.RS256: 1}
    examined = ExaminedIssuer(iss=ISS, jwks_uri=jwks_uri, signing=[key], upcoming=[coming], client_counts=counted)
    return await examine_issuer(examined, read, lambda: NOW)


async def test_issuer_with_complete_documents_has_no_problem() -> None:
    """The next key is a problem only while it is not published."""
    found = await issuer(keys=(EC, {**EC, "kid": "k2"}))
    assert bad(found) == ""
    keys = [finding.text for finding in found if finding.area is Area.KEYS]
    assert [text.partition(", is published ")[0] for text in keys] == [
        "key k1 (ES256), for 3 clients",
        "key k2, which signs later",
    ]
    assert "k2, which signs later" in bad(await issuer())


@pytest.mark.parametrize("empty", [None, "", []], ids=["null", "text", "list"])
async def test_an_empty_member_is_absent(empty: object) -> None:
    """In keys and metadata: an empty member does not publish a private half."""
    odd = dict.fromkeys(("d", "p", "k", "use", "alg", "key_ops", "x5c", "oth"), empty)
    found = await issuer(keys=({**EC, **odd}, {**EC, **odd, "kid": "k2"}))
    assert bad(found) == ""
    unnamed = await issuer({**GOOD, "jwks_uri": empty}, jwks_uri=None)
    assert "the address of its keys is unknown" in bad(unnamed)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"keys": ()}, "failed: key k1 (ES256): the key is not published; 3 clients will answer 400"),
        ({"keys": (), "used": 0}, "warning: key k1, which no registered client needs"),
        ({"keys": ({**EC, "use": "enc"},)}, '"use": "enc"'),
        ({"keys": (EC, {**EC, "kid": "x", "d": "AQID"})}, "failed: its JWK Set holds a private key"),
        (
            {"keys": DocumentIssue(text="answered 503")},
            "failed: its JWK Set at https://id.example/jwks could not be read",
        ),
        ({"keys": {"error": "no"}}, "is no JWK Set"),
        ({"metadata": DocumentIssue(text="answered 404")}, "warning: its metadata"),
        ({"metadata": {**GOOD, "backchannel_logout_supported": False}}, "backchannel_logout_supported: true"),
        (
            {"metadata": {**GOOD, "backchannel_logout_session_supported": None}},
            "session_supported: true",
        ),
        ({"metadata": {**GOOD, "issuer": ISS + "/"}}, "failed: the issuer in its metadata is"),
        ({"metadata": {**GOOD, "jwks_uri": f"{ISS}/other"}}, "receivers read the keys at"),
        ({"jwks_uri": None}, "do not watch its keys"),
        ({"metadata": DocumentIssue(text="x"), "jwks_uri": None}, "is unknown"),
        ({"date": NOW - 60}, "failed: its clock is 60 s behind ours"),
    ],
)
async def test_issuer_problems(given: dict[str, object], words: str) -> None:
    """B1, B2, and every other reason why receivers cannot verify a signature of the key."""
    assert words in bad(await issuer(**given))  # type: ignore[arg-type]


def test_new_key_that_clients_may_not_have_yet() -> None:
    """On its first day, for clients whose preset caches the JWK Set, by the algorithm that signs for the client."""
    bff = client("bff", preset="duende_bff", token=TokenProfile(alg=Algorithm.ES256))
    other = client("other", preset="duende_bff")

    def findings(age: float, *seen: SeenKey) -> str:
        key = Signing(alg=Algorithm.ES256, public=EC, made_at=NOW - age)
        examined = ExaminedIssuer(
            iss=ISS, jwks_uri=JWKS, signing=[key], upcoming=[], client_counts={}, slow_clients=[bff, other]
        )
        published = read_jwks({"keys": [EC]})
        assert isinstance(published, tuple)
        found = list(judge_keys(examined, published, merge_seen_keys(seen), NOW))
        assert "key k1, which no registered client needs, is published since" in found[0].text
        return bad(found)

    assert "key k1 (ES256) is 3.0 h old, and 1 client may not have read it yet" in findings(3 * 3600)
    assert "JWK Set: bff" in findings(-60)  # a clock that was set back
    assert findings(DAY_SECONDS) == ""
    assert "is 1.0 h old" in findings(DAY_SECONDS, SeenKey(iss=ISS, kid="k1", since=NOW - 3600, appeared=True))
    assert (
        findings(DAY_SECONDS, SeenKey(iss=ISS, kid="k1", since=NOW - 3600)) == ""
    )  # perhaps it was there before the worker


@pytest.mark.parametrize("length", [31, 33])
def test_a_published_coordinate_of_a_wrong_length_is_named(length: int) -> None:
    """RFC 7518 §6.2.1.2. It is our key, and some libraries refuse it."""
    signing = [Signing(alg=Algorithm.ES256, public=EC)]
    examined = ExaminedIssuer(iss=ISS, jwks_uri=JWKS, signing=signing, upcoming=[], client_counts={})
    written = base64.urlsafe_b64encode(bytes(length)).decode().rstrip("=")
    keys_of_issuer = read_jwks({"keys": [EC | {"x": written}]})
    assert isinstance(keys_of_issuer, tuple)
    found = bad(list(judge_keys(examined, keys_of_issuer, {}, NOW)))
    assert f"key 'k1' has \"x\" of {length} bytes, and P-256 needs 32" in found


# ── clients ──


def client(client_id: str, uri: str | None = "https://shop.example/out", **more: object) -> Client:
    return Client(iss=ISS, client_id=client_id, backchannel_logout_uri=uri, **more)  # type: ignore[arg-type]


def test_clients_of_one_server_are_tried_once() -> None:
    """By scheme, host, port and route. A client without a URI is not tried."""
    clients = [
        client("a"),
        client("b", "https://SHOP.example/b?t=1"),
        client("c", "https://else.example/"),
        client("d", None),
    ]
    assert [(server.origin, server.subject) for server in servers_of(clients)] == [
        ("https://shop.example", "a, b"),
        ("https://else.example", "c"),
    ]


@pytest.mark.parametrize(
    ("met", "words"),
    [
        (ReachedAddress(address="192.0.2.1", expires=NOW + 90 * DAY_SECONDS), ""),
        (
            ReachedAddress(address="192.0.2.1", expires=NOW + 13 * DAY_SECONDS),
            "warning: https://shop.example accepts connections; the certificate expires in 13 days",
        ),
        (ReachedAddress(address="192.0.2.1", expires=NOW + 0.5 * DAY_SECONDS), "expires in less than a day"),
        (ReachedAddress(address="192.0.2.1", proxy=True), ""),
        (
            ReachFailure(reason=Reason.DNS, text="no such name"),
            "failed: https://shop.example cannot be reached: no such name",
        ),
        (ReachFailure(reason=Reason.EGRESS_DENIED, text="is private"), "is private"),
    ],
)
async def test_reaching_a_server(met: ReachedAddress | ReachFailure, words: str) -> None:
    """A certificate that expires within two weeks is a warning."""

    async def reach(*_: object) -> ReachedAddress | ReachFailure:
        return met

    async def nobody() -> Statuses:
        return {}

    findings = bad(await examine_server(servers_of([client("shop")])[0], reach, lambda: NOW, nobody))
    assert words in findings
    assert bool(findings) == bool(words)


async def test_reachable_client_may_be_unhealthy() -> None:
    """Workers report that it answers 400 to all, hangs, or is deferred. Clients of one server are separate."""

    async def reach(*_: object) -> ReachedAddress:
        return ReachedAddress(address="192.0.2.1", expires=NOW + 90 * DAY_SECONDS)

    async def met() -> Statuses:
        plain = {"reason": "rejected_token", "status": 400, "last_failure": NOW - 60, "text": "aud does not match"}
        states = [
            ClientStatus(iss=ISS, client_id="bad", **plain),  # type: ignore[arg-type]
            ClientStatus(iss=ISS, client_id="repaired", **(plain | {"last_failure": NOW - DAY_SECONDS})),  # type: ignore[arg-type]
            ClientStatus(iss=ISS, client_id="hangs", circuit=2, reason="timeout", parked=3, last_failure=NOW),
            ClientStatus(iss=ISS, client_id="unsigned", waits_for="signing", deferred_at=NOW),
            ClientStatus(iss=ISS, client_id="shop", last_success=NOW),
        ]
        return {(each.iss, each.client_id): each for each in states}

    names = ("shop", "bad", "repaired", "hangs", "unsigned", "new")
    [server] = servers_of([client(name, "https://all.example/") for name in names])
    found = await examine_server(server, reach, lambda: NOW, met)
    assert [(each.subject, each.level) for each in found] == [
        ("hangs", "failed"), ("bad", "failed"), ("repaired", "warning"), ("unsigned", "warning"), ("shop, new", "ok"),
    ]  # fmt: skip
    assert "a worker reports rejected_token 400 60 s ago: aud does not match" in found[1].text
    assert "3 of its deliveries wait" in found[0].text
    assert found[3].advice == "notifier explain signing"


def test_problems_that_workers_report() -> None:
    """A refused reload, a silent worker, or no worker at all."""
    refused = Trouble(kind="reload_refused", text="3 of 7 clients", since=NOW)
    known = {(ISS, "shop")}
    state = WorkerState(
        worker="a", version="1", since=NOW, draining=False, in_flight=0, held={}, rates={},
        clients=[ClientStatus(iss=ISS, client_id=name, circuit=2, reason="dns") for name in ("shop", "gone")],
        troubles=[refused, Trouble(kind="restart_needed", text="log", since=NOW)],
    )  # fmt: skip
    depths = {"events": Depth(ready=0, consumers=2)}
    found = list(judge_workers(status_of(depths, [dump_state(state)], now=NOW, seen=2), known, NOW))
    assert bad(found) == (
        "warning: 1 of 2 workers did not answer; their reports are missing here | failed: 3 of 7 clients | warning: log"
        " | warning: has an open circuit and is not in this configuration; a worker reports dns"
    )
    blocked = list(judge_workers(status_of(depths, [], now=NOW, seen=2, blocked="full"), known, NOW))
    assert "since the queue takes no message" in bad(blocked)
    assert "failed: full" in bad(blocked)
    assert levels(list(judge_workers(status_of({}, [], now=NOW), known, NOW))) == {Severity.OK}
    alone = list(judge_workers(status_of(depths, [dump_state(state)], now=NOW, seen=1), known, NOW, ["op"]))
    assert "tokens that the server sends once are lost" in bad(alone)
    two = list(judge_workers(status_of(depths, [dump_state(state)], now=NOW, seen=2), known, NOW, ["op"]))
    assert bad(two) == bad(found)


def test_registrations() -> None:
    """A preset that is overridden or refuses the algorithm, a paused client. A missing preset or URI is information."""
    found = list(
        judge_registry(
            [
                client("a", preset="auth0_sample", token=TokenProfile(typ="JWT")),
                client("b", preset="auth0_sample"),
                client("c", preset="pac4j", token=TokenProfile(subject=SubjectMode.SUB)),
                client("d", paused=True),
                client("e", None),
                client("f", preset="duende_bff", token=TokenProfile(alg=Algorithm.EDDSA)),
                client("g", preset="duende_bff"),
                client("i", preset="quarkus", token=TokenProfile(requires="sub")),
                client("j", preset="keycloak"),
                client(
                    "k",
                    preset="keycloak_broker",
                    token=TokenProfile(subject=SubjectMode.SUB),
                    backchannel_logout_session_required=True,
                ),
                replace(client("l", preset="keycloak"), iss="https://kc.example.com/auth/realms/shop/"),
                client(
                    "h", None, front_channel=FrontChannelClient(frontchannel_logout_uri="https://h.example.com/out")
                ),
            ]
        )
    )
    by_subject = {finding.subject: finding.text for finding in found}
    assert "it remembers logouts in memory, ten by default" in by_subject["i"]
    assert "compares sid with session_state" in by_subject["j"]
    assert "puts a sid into each token" in by_subject["k"]
    assert "l" not in by_subject
    assert by_subject["e"] == "has no backchannel_logout_uri, so it is never notified"
    assert "only browsers notify it" in by_subject["h"]
    findings = bad(found)
    assert "requires typ JWT, but the registration sets logout+jwt" in findings
    assert "requires subject sid, but the registration sets sub" in findings
    assert "is paused" in findings
    assert "preset duende_bff takes no EdDSA, so it answers 400" in findings
    assert {finding.subject for finding in found} == {*"bcdefhijk"}


# ── tests ──


@pytest.mark.parametrize(
    ("iss", "test"),
    [
        ("https://notifier-canary.invalid", True),
        ("https://invalid/tenant", True),
        ("https://id.invalid:8443/t", True),
        ("https://id.invalid.example", False),
        ("https://notinvalid", False),
        (ISS, False),
    ],
)
async def test_issuer_with_a_reserved_name_is_for_tests(iss: str, test: bool) -> None:
    """Its documents and clients are not checked, as the finding states."""
    assert is_for_tests(iss) is test
    asked: list[str] = []

    async def read(uri: str) -> DocumentIssue:
        asked.append(uri)
        return DocumentIssue(text="no such name")

    canary = replace(client("canary"), iss=iss)
    examined = ExaminedIssuer(iss=iss, jwks_uri=None, signing=[], upcoming=[], client_counts={})
    findings = await examine_issuer(examined, read, lambda: NOW)
    registered = list(judge_registry([canary]))
    assert (asked == [], servers_of([canary]) == []) == (test, test)
    assert ("only for tests" in findings[0].text) is test
    assert (bad(findings) == "") is test
    assert [("only while a test" in finding.text, finding.subject) for finding in registered] == [(test, "canary")]


def test_default_issuer_is_not_the_test_issuer() -> None:
    """Without an issuer argument, the only other issuer is meant."""
    assert find_only_issuer([ISS, "https://notifier-canary.invalid"]) == ISS
    assert find_only_issuer([ISS, "https://staff.example", "https://notifier-canary.invalid"]) is None
    assert find_only_issuer(["https://notifier-canary.invalid"]) is None
    assert find_only_issuer([]) is None


# ── transmitters ──


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (IssuerDocument(content={"keys": [EC, {"kty": "oct"}]}), ""),
        (DocumentIssue(text="refused the connection"), "could not be read: refused the connection"),
        (IssuerDocument(content=[]), "is no JWK Set"),
        (IssuerDocument(content={"keys": [{**EC, "use": "enc"}, {"kty": "oct"}]}), "no key that verifies signatures"),
        (IssuerDocument(content={"keys": [EC, {**EC, "d": "AAAA"}]}), "holds a private key"),
        (IssuerDocument(content={"keys": [SLOW]}), "verifies signatures: key 'slow' has an exponent that is too long"),
        (IssuerDocument(content={"keys": [EC, SLOW]}), "not used: key 'slow' has an exponent that is too long"),
        (IssuerDocument(content={"keys": [EC | {"y": COORDINATE[3:]}]}), 'has "y" of 30 bytes, and P-256 needs 32'),
    ],
    ids=range(8),
)
def test_whether_the_tokens_of_a_source_can_be_verified(
    document: IssuerDocument | DocumentIssue, expected: str
) -> None:
    """Before the first token arrives."""
    findings = bad(judge_transmitter("sources.kc.http.set", JWKS, document))
    assert expected in findings if expected else not findings


# ── The canary token: its claims, and the explanation of the answer ──────────────────────────────────────────────────


class Receiver:
    """Transport and signer in one: the token is its claims."""

    def __init__(self, wire: TransportResult) -> None:
        self.wire = wire
        self.claims: dict[str, object] = {}
        self.broken = False

    async def sign(self, _iss: str, _alg: Algorithm, _typ: str | None, claims: Mapping[str, object]) -> str:
        if self.broken:
            raise InternalFault(Cause.SIGNING, "no key is due")
        return json.dumps(claims)

    async def post(self, request: Request) -> TransportResult:
        self.claims = json.loads(request.secret)
        return self.wire


async def send(receiver: Receiver, **more: object) -> Finding:
    uri = more.pop("uri", "https://shop.example/out")
    client = Client(iss="https://id.example", client_id="shop", backchannel_logout_uri=uri, **more)  # type: ignore[arg-type]
    tools = CanaryTools(
        channels={"back_channel": BackChannel(receiver, clock=lambda: 1000.0, new_jti=lambda: "f00d")},
        transport=receiver,
        new_id=lambda: "f00d",
    )
    [found] = await send_canary(client, tools)
    return found


async def test_canary_user_and_session_cannot_exist() -> None:
    """Both claims are set, so that no receiver ends all sessions of a user (B13), also for a pairwise client."""
    receiver = Receiver(HttpResponse(status=204))
    found = await send(receiver, pairwise=True)
    assert found.level is Severity.OK
    assert receiver.claims["sub"] == receiver.claims["sid"] == f"{CANARY_SUBJECT_PREFIX}f00d"
    assert "f00d" in found.text


@pytest.mark.parametrize(
    ("wire", "preset", "level", "words"),
    [
        (
            HttpResponse(status=400, text="invalid_request"),
            "express_openid_connect",
            Severity.WARNING,
            "exactly one algorithm",
        ),
        (HttpResponse(status=400), "nextcloud", Severity.FAILED, "never an unknown session"),
        (HttpResponse(status=400), None, Severity.WARNING, "set its preset"),
        (HttpResponse(status=302), None, Severity.FAILED, "never followed"),
        (HttpResponse(status=403), None, Severity.FAILED, "sign-in"),
        (HttpResponse(status=404), None, Severity.FAILED, "backchannel_logout_uri"),
        (HttpResponse(status=415), None, Severity.FAILED, "its log"),
        (HttpResponse(status=500), "spring", Severity.FAILED, "JWK Set"),
        (HttpResponse(status=202, challenge="AWS WAF answered"), None, Severity.FAILED, "firewall"),
        (HttpResponse(status=200, text="<html>", is_web_page=True), None, Severity.WARNING, "start page"),
        (
            TransportFailure(reason=Reason.TLS, ambiguous=False, text="certificate: expired"),
            None,
            Severity.FAILED,
            "renew",
        ),
        (StaleConnection(), None, Severity.FAILED, "log"),
    ],
)
async def test_canary_answers_are_explained(
    wire: TransportResult, preset: str | None, level: Severity, words: str
) -> None:
    """By the client's preset, if it has one."""
    found = await send(Receiver(wire), preset=preset)
    assert found.level is level
    assert words in found.advice


async def test_unsendable_canary_is_reported() -> None:
    """No URI, or no current key."""
    assert (await send(Receiver(HttpResponse(status=200)), uri=None)).level is Severity.FAILED
    receiver = Receiver(HttpResponse(status=200))
    receiver.broken = True
    assert "no key is due" in (await send(receiver)).text


# ── Encryption keys of clients: the doctor reads them and reports the key that would be used, or the error ───────────


PLACE = ClientKeysSource(uri="https://shop.example/jwks", route=Route())
KEY = public(made("RSA"), kid="e1", use="enc")


def encrypted_client(client_id: str, keys: Any = PLACE, alg: KeyManagement = KeyManagement.RSA_OAEP) -> Client:
    return Client(
        iss="https://id.example.com",
        client_id=client_id,
        backchannel_logout_uri="https://shop.example/bc",
        encryption=None if keys is None else Encryption(alg=alg, keys=keys),
    )


async def findings(document: IssuerDocument | DocumentIssue, *clients: Client) -> list[tuple[str, str, str]]:
    async def read(_place: ClientKeysSource) -> IssuerDocument | DocumentIssue:
        return document

    return [_told(each) for each in await examine_keys(PLACE, clients, read)]


def _told(finding: Finding) -> tuple[str, str, str]:
    return finding.subject, str(finding.level), finding.text


def test_each_key_source_is_read_once() -> None:
    """Each source of keys, once for all its clients; clients without encryption have none."""
    one, two = encrypted_client("shop"), encrypted_client("mail")
    assert key_sources_of([one, encrypted_client("plain", None), two, encrypted_client("own", keys(KEY))]) == {
        PLACE: [one, two]
    }


async def test_selected_encryption_key_is_reported() -> None:
    """With the algorithms, so that the client's operator can compare."""
    [(subject, level, text)] = await findings(IssuerDocument(content={"keys": [KEY]}), encrypted_client("shop"))
    assert (subject, level) == ("shop", "ok")
    assert text == "its tokens are encrypted to its key 'e1' by RSA-OAEP and A128CBC-HS256"


async def test_unreadable_jwk_set_fails_all_its_clients() -> None:
    """Their deliveries wait, and the advice states it."""
    for document, words in (
        (DocumentIssue(text="answered 503"), "https://shop.example/jwks cannot be read: answered 503"),
        (IssuerDocument(content=[]), "cannot be read: is no JWK Set"),
    ):
        found = await findings(document, encrypted_client("shop"), encrypted_client("mail"))
        assert [(subject, level) for subject, level, _ in found] == [("shop", "failed"), ("mail", "failed")]
        assert words in found[0][2]


async def test_jwk_set_without_a_suitable_key_fails_only_the_client() -> None:
    """Another client of the set may require a key that exists."""
    document = IssuerDocument(content={"keys": [KEY]})
    found = await findings(document, encrypted_client("shop"), encrypted_client("ec", alg=KeyManagement.ECDH_ES))
    assert [level for _, level, _ in found] == ["ok", "failed"]
    assert "has no key for ECDH-ES: key 'e1' is of the type RSA" in found[1][2]


def test_keys_of_the_registration_need_no_network() -> None:
    """They are checked offline."""
    own = [
        encrypted_client("good", keys(KEY)),
        encrypted_client("bad", keys(KEY), KeyManagement.ECDH_ES),
        encrypted_client("plain", None),
    ]
    assert [(each.subject, str(each.level)) for each in judge_jwks(own)] == [("good", "ok"), ("bad", "failed")]


# ── Wrong use of `notifier doctor` ───────────────────────────────────────────────────────────────────────────────────


def test_canary_for_an_unknown_client_is_a_usage_error(tmp_path: Path) -> None:
    """Exit 2 before any check; likewise a canary that may not connect."""
    site = Site(tmp_path, "sqlite:queue.db")
    done = notifier("doctor", "-c", site.file, "--canary", "nobody", cwd=tmp_path)
    assert done.returncode == 2
    assert "nobody" in done.stderr
    assert not done.stdout
    assert notifier("doctor", "-c", site.file, "--canary", "x", "--offline", cwd=tmp_path).returncode == 2


def test_expired_api_token_is_reported(tmp_path: Path) -> None:
    """By its name. A valid token is not reported."""
    site = Site(tmp_path, "sqlite:queue.db")
    ends = {"idp": "2025-06-15T00:00:00Z", "ops": "2999-01-01T00:00:00Z"}
    tokens = [{"name": name, "token": name, "scopes": ["read"], "expires": end} for name, end in ends.items()]
    (tmp_path / "tokens.yaml").write_text(json.dumps(tokens))
    done = notifier("doctor", "-c", site.file, "--offline", "--json", cwd=tmp_path)
    [findings] = [finding for finding in json.loads(done.stdout) if "token '" in finding["subject"]]
    assert (findings["area"], findings["level"], findings["subject"]) == (
        "listener",
        "warning",
        "api.tokens_file: token 'idp'",
    )
    assert findings["text"] == "has expired at 2025-06-15 00:00:00Z"
    assert findings["advice"].startswith("create another")


async def test_failures_come_first_in_their_area() -> None:
    """Then warnings. Areas keep their order."""

    async def answer() -> Sequence[Finding]:
        return [
            ok(Area.CLIENT, "shop", "answers"),
            warning(Area.CLIENT, "mail", "is slow", ""),
            failure(Area.CLIENT, "wiki", "is gone", ""),
            ok(Area.QUEUE, "q", "answers"),
        ]

    findings = await examine([Check(area=Area.CLIENT, subject="all", timeout=600, run=answer)])
    assert [finding.subject for finding in findings] == ["q", "wiki", "mail", "shop"]


async def test_checks_that_hang_delay_others_by_their_timeout() -> None:
    """While they hold all places of a run. One free place is enough, and another run has other places."""

    async def hang() -> Sequence[Finding]:
        await asyncio.Event().wait()
        raise AssertionError

    async def answer() -> Sequence[Finding]:
        return [ok(Area.CLIENT, "shop", "answers")]

    hanging = [Check(area=Area.QUEUE, subject="q", timeout=600, run=hang) for _ in range(MAX_CONCURRENT_CHECKS)]
    shop, done = Check(area=Area.CLIENT, subject="shop", timeout=600, run=answer), asyncio.Event()
    full = asyncio.create_task(examine([*hanging, shop]))
    free = asyncio.create_task(examine([*hanging[1:], shop], lambda _done, _total: done.set()))
    await asyncio.wait_for(done.wait(), 30)
    assert [finding.text for finding in await examine([shop])] == ["answers"]
    assert not full.done()
    for run in (full, free):
        run.cancel()
    await asyncio.wait([full, free])
    findings = await examine([*(replace(check, timeout=0.01) for check in hanging), shop])
    assert [finding.level for finding in findings] == [Severity.FAILED] * len(hanging) + [Severity.OK]
