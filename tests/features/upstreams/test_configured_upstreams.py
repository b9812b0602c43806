"""Upstreams of the configuration: what is refused, checked, and follows a reload."""

import asyncio
import json
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from cryptography.fernet import Fernet
from structlog.testing import capture_logs

from notifier.configuration.file_mistakes import find_start_errors
from notifier.configuration.live_configuration import LiveConfiguration
from notifier.configuration.loading import load
from notifier.features import FEATURES
from notifier.features.upstreams.configured_upstreams import ConfiguredUpstreams
from notifier.features.upstreams.doctor_upstreams import examine_keys
from notifier.features.upstreams.session_lookups import MAX_CONCURRENT_LOOK_UPS
from notifier.features.upstreams.upstream import LocalSession, LocalSessions, SessionsLookedUp, UpstreamSession
from notifier.features.upstreams.upstream_issuers import check_upstreams
from notifier.features.upstreams.upstream_record import UpstreamRecord
from notifier.features.upstreams.upstream_settings import upstreams_of
from notifier.features.upstreams.upstream_token import UnacceptedLogout, UpstreamResult, VerifiedLogout
from notifier.model.errors import ConfigurationError
from notifier.network.http.issuer_document import IssuerDocument
from notifier.settings.service_settings import Settings
from tests.cli.in_process import notifier
from tests.features.upstreams.upstream_provider import OURS, UPSTREAM, logout_token
from tests.settings.whole_settings import SETTINGS
from tests.system.loopback import LoopbackServer
from tests.tokens.key_folder import ISS, pem
from tests.tokens.transmitter import key, public

# ── The upstreams of the configuration: what is refused, what follows a reload, and whether the example is right ───


EXAMPLE = Path(__file__).parents[3] / "docs/examples/upstreams.yaml"
OP: dict[str, Any] = {"issuer": "https://op.example.com", "client_id": "us", "resolve": {"same_sub": {}}}
TABLE = {"url": "sqlite:///a.db", "preset": "duende"}
ASKED = {"resolve": {"http": {"url": "https://login.example.com/sessions"}}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the example's files."""
    (tmp_path / "key.pem").write_bytes(pem("ES256"))
    (tmp_path / "web.keys").write_bytes(Fernet.generate_key())
    (tmp_path / "clients.yaml").write_text("[]")
    (tmp_path / "session-api-token").write_text("Bearer t0k3n")
    return tmp_path


def written(folder: Path, **changes: object) -> Path:
    """The example with some sections replaced; None leaves one out."""
    whole = {**yaml.safe_load(EXAMPLE.read_text()), **changes}
    path = folder / "notifier.yaml"
    path.write_text(json.dumps({name: section for name, section in whole.items() if section is not None}))
    return path


def mistakes(folder: Path, **changes: object) -> list[str]:
    with pytest.raises(ConfigurationError) as refused:
        load(written(folder, **changes), {}, FEATURES)
    return [str(each) for each in refused.value.mistakes]


def test_the_example_of_the_documentation_is_right(folder: Path) -> None:
    """As it stands."""
    loaded = load(written(folder), {}, FEATURES, find_more=find_start_errors)
    assert (set(loaded.settings.upstreams), loaded.warnings) == ({"partner", "workforce", "entra", "hydra"}, ())
    assert "t0k3n" not in repr(loaded.settings)


def test_check_names_each_upstream(folder: Path) -> None:
    """With the path of its posts, and the resolver of local sessions."""
    path = written(folder)
    done = notifier("check", "-c", str(path), "--offline", cwd=folder)
    assert "upstream partner: " in done.stdout, done.stderr
    assert [line for line in done.stdout.splitlines() if "browsers may call" in line] == [
        line for line in done.stdout.splitlines() if line.startswith("upstream entra: ")
    ]
    assert "posts to /upstreams/partner/backchannel-logout, sessions at https://login.example.com by " in done.stdout
    shown = json.loads(notifier("check", "-c", str(path), "--offline", "--json", cwd=folder).stdout)["upstreams"]
    assert {name: each["resolve"] for name, each in shown.items()} == {
        name: next(iter(each["resolve"])) for name, each in yaml.safe_load(EXAMPLE.read_text())["upstreams"].items()
    }


@pytest.mark.parametrize(
    ("upstream", "phrase"),
    [
        ({**OP, "resolve": {}}, "needs one of same_sub, sql, http"),
        ({**OP, "resolve": {"same_sub": {}, "http": {"url": "https://a.example"}}}, "it has same_sub and http"),
        ({**OP, "issuer": "https://*.example.com"}, "one host"),
        ({**OP, "issuer": "https://op.example.com;script-src"}, "one host"),
        ({**OP, "algorithms": ["HS256"]}, "RS256"),
        ({**OP, "algorithms": []}, "at least"),
        ({**OP, "client_id": []}, "at least"),
        ({**OP, "jwks_uri": "https://a.example", "discovery": "https://a.example"}, "remove one of them"),
        ({**OP, "iss": "https://login.example.co"}, "did you mean https://login.example.com?"),
        ({**OP, "resolve": {"sql": {"url": "sqlite:///a.db", "query": "SELECT sub FROM users"}}}, "end everybody's"),
        ({**OP, "resolve": {"sql": {"url": "sqlite:///a.db"}}}, "needs preset or query"),
        ({**OP, "resolve": {"sql": {"url": "sqlite:///a.db", "query": "SELECT :sub", "prefix": "op|"}}}, "into query"),
        ({**OP, "front_channel": True}, "distinguished from a real one; use resolve.sql.query or resolve.http"),
        (
            {**OP, "front_channel": True, "resolve": {"sql": {"url": "sqlite:///a.db", "preset": "duende"}}},
            "its table does not have the provider of a session; use resolve.sql.query or resolve.http",
        ),
    ],
)
def test_a_mistake_names_the_setting_and_the_way_out(folder: Path, upstream: object, phrase: str) -> None:
    """Before any token comes."""
    [mistake] = mistakes(folder, upstreams={"op": upstream})
    assert mistake.startswith("upstreams.op")
    assert phrase in mistake


def test_whose_issuer_it_is_must_be_clear(folder: Path) -> None:
    """With two issuers the upstream names one. An issuer that lists its publishers lists the upstream too."""
    keys: dict[str, object] = {"keys": [{"file": "key.pem"}]}
    two = {"https://a.example": keys, "https://b.example": keys}
    [mistake] = mistakes(folder, issuers=two, upstreams={"op": OP})
    assert mistake.startswith("upstreams.op.iss is required") or "upstreams.op.iss" in mistake
    [mistake] = mistakes(folder, issuers={"https://a.example": {**keys, "publishers": ["idp"]}}, upstreams={"op": OP})
    assert "must name op too" in mistake
    loaded = load(written(folder, web=None, upstreams={"op": OP}), {}, FEATURES)
    assert "has no effect without a section `web`" in str(loaded.warnings[0])


@pytest.mark.parametrize(
    ("one", "two", "refused"),
    [
        ({"same_sub": {"prefix": "a:"}}, {"same_sub": {"prefix": "a:b:"}}, True),
        ({"same_sub": {"prefix": "a:b:"}}, {"sql": {**TABLE, "prefix": "a:"}}, True),
        ({"same_sub": {"prefix": "a:"}}, {"same_sub": {"prefix": "b:"}}, False),
        ({"same_sub": {"prefix": "a:"}}, {"same_sub": {"prefix": "a:"}}, False),
    ],
)
def test_prefixes_of_upstreams_must_not_overlap(folder: Path, one: object, two: object, refused: bool) -> None:
    """Otherwise an invented `sub` of one may be a user of another. Two clients of one provider may share a prefix."""
    upstreams = {"one": {**OP, "resolve": one}, "two": {**OP, "resolve": two}}
    if refused:
        [mistake] = mistakes(folder, upstreams=upstreams)
        assert "let none begin with another" in mistake
    else:
        assert not load(written(folder, upstreams=upstreams), {}, FEATURES).warnings


@pytest.mark.parametrize(
    ("upstream", "warned"),
    [
        (OP, ["upstreams.op.resolve.same_sub.prefix"]),
        ({**OP, "resolve": {"same_sub": {"prefix": "op|"}}}, []),
        ({**OP, "issuer": "https://login.example.com"}, []),
        ({**OP, "resolve": {"sql": {**TABLE, "prefix": ""}}}, ["upstreams.op.resolve.sql.prefix"]),
        ({**OP, "resolve": {"sql": {**TABLE, "prefix": "op|"}}}, []),
        ({**OP, "resolve": {"sql": TABLE}}, ["upstreams.op.resolve.sql.prefix"]),
        ({**OP, **ASKED, "without_iss": "allow"}, ["upstreams.op.without_iss"]),
        ({**OP, **ASKED, "parents": ["https://a.example"]}, ["upstreams.op.parents"]),
        ({**OP, **ASKED, "parents": ["https://a.example"], "front_channel": True}, []),
        ({**OP, **ASKED, "jwks_uri": "https://op.example.com/jwks"}, ["upstreams.op.algorithms"]),
        ({**OP, **ASKED, "jwks_uri": "https://op.example.com/jwks", "algorithms": ["RS256"]}, []),
    ],
)
def test_settings_that_end_all_or_no_sessions_cause_a_warning(
    folder: Path, upstream: object, warned: list[str]
) -> None:
    """An upstream that is the identity server itself may speak of all its users."""
    loaded = load(written(folder, upstreams={"op": upstream}), {}, FEATURES)
    assert [each.path for each in loaded.warnings] == warned


@pytest.mark.parametrize(
    ("advertised", "algorithms", "expected"),
    [
        (["RS256"], None, ["RS256"]),
        (["RS256", "EdDSA", "HS256"], None, ["EdDSA", "Ed25519", "RS256"]),
        (["Ed25519"], None, ["EdDSA", "Ed25519"]),
        (["RS256"], ["ES256", "EdDSA"], ["ES256", "EdDSA", "Ed25519"]),
        (["HS256"], None, ["ES256", "EdDSA", "Ed25519", "RS256"]),
        (None, None, ["ES256", "EdDSA", "Ed25519", "RS256"]),
        ("RS256", None, ["ES256", "EdDSA", "Ed25519", "RS256"]),
    ],
)
async def test_a_token_is_signed_as_the_metadata_of_its_provider_name(
    folder: Path, advertised: object, algorithms: list[str] | None, expected: list[str]
) -> None:
    """Unless `algorithms` name others. Without such a member any algorithm is accepted."""
    kinds = {"ES256": "P-256", "EdDSA": "Ed25519", "Ed25519": "Ed25519", "RS256": "RSA"}

    async def answer(request: web.BaseRequest) -> web.Response:
        if request.path == "/jwks":
            return web.json_response({"keys": [public(key(kind), kind) for kind in ("P-256", "Ed25519", "RSA")]})
        supported = {"id_token_signing_alg_values_supported": advertised}
        return web.json_response({"issuer": UPSTREAM, "jwks_uri": f"{server.base}/jwks", **supported})

    async with LoopbackServer(answer) as server:
        op = {**OP, **ASKED, "issuer": UPSTREAM, "client_id": OURS, "discovery": server.base, "algorithms": algorithms}
        path = written(folder, upstreams={"op": op}, egress={"allow_http": True, "allow": ["127.0.0.0/8"]})
        upstreams = ConfiguredUpstreams(LiveConfiguration(path, {}, load(path, {}, FEATURES)), UpstreamRecord())
        upstream = upstreams.find_upstream("op")
        assert upstream is not None
        accepted = []
        for alg, kind in kinds.items():
            token = logout_token(key(kind), {"alg": alg, "kid": kind}, iat=int(time.time()), exp=None)
            found = await upstream.verifier.verify(token)
            accepted += [alg] if isinstance(found, VerifiedLogout) else []
            if isinstance(found, UnacceptedLogout) and algorithms is None:
                assert found.description == "the issuer publishes no key that fits kid and alg"
        assert accepted == expected
        await upstreams.aclose()


async def test_the_doctor_names_metadata_without_algorithms(folder: Path) -> None:
    """Then any algorithm is accepted, unless the settings name some."""
    for algorithms, warned in ((None, True), (["RS256"], False)):
        upstream = load(written(folder, upstreams={"op": {**OP, "algorithms": algorithms}}), {}, FEATURES)

        async def read() -> IssuerDocument:
            return IssuerDocument(content={"keys": [public(key("P-256"))]})

        findings = await examine_keys("upstreams.op", UPSTREAM, read, upstreams_of(upstream.settings)["op"])
        assert ("id_token_signing_alg_values_supported" in str(findings)) is warned


@pytest.mark.parametrize(
    ("url", "phrase"),
    [
        ("https://login.example.com//evil.example", "single slashes"),
        ("https://login.example.com/\\evil.example", "single slashes"),
        ("https://*.example.com/connect", "one host"),
        ("https://login.example.com;script-src/connect", "one host"),
        ("https://login.example.com/connect?a", "neither a query"),
        ("https://user@login.example.com/connect", "neither a query"),
    ],
)
def test_a_page_is_framed_by_one_host_and_reports_to_it_alone(folder: Path, url: str, phrase: str) -> None:
    """Nothing of a setting is a pattern, another directive, or a path that browsers read as another host."""
    face = {"keys_file": "web.keys", "issuers": {"https://login.example.com": {"url": url}}}
    [mistake] = mistakes(folder, web=face)
    assert mistake.startswith("web.issuers")
    assert phrase in mistake


@pytest.mark.parametrize(
    "parent",
    [
        "*",
        "https:",
        "https://*.example.com",
        "https://a.example;script-src",
        "https://a.example,b",
        "https://a.example'",
    ],
)
def test_a_parent_is_one_origin(folder: Path, parent: str) -> None:
    """It stands in a policy as it is."""
    page = {"url": "https://login.example.com/connect", "parents": [parent]}
    [mistake] = mistakes(folder, web={"keys_file": "web.keys", "issuers": {"https://login.example.com": page}})
    assert "must be one origin" in mistake


async def test_look_ups_for_browsers_delay_no_logout_token(folder: Path) -> None:
    """A stranger may ask about made-up sessions without end. Upstreams' logout tokens are looked up meanwhile."""
    asked: asyncio.Queue[str] = asyncio.Queue()
    over = asyncio.Event()

    async def slow(request: web.BaseRequest) -> web.Response:
        asked.put_nowait((await request.json())["sid"])
        await over.wait()
        return web.json_response([])

    async with LoopbackServer(slow) as server:
        path = written(folder, upstreams={"op": {**OP, "resolve": {"http": {"url": server.base}}}})
        upstreams = ConfiguredUpstreams(LiveConfiguration(path, {}, load(path, {}, FEATURES)), UpstreamRecord())
        op = upstreams.find_upstream("op")
        assert op is not None
        made_up, real = (
            UpstreamSession(iss="https://op.example.com", sub=None, sid=sid) for sid in ("made-up", "real")
        )
        async with asyncio.TaskGroup() as group:
            strangers = [group.create_task(op.look_up_for_browser(made_up)) for _ in range(MAX_CONCURRENT_LOOK_UPS)]
            assert {await asked.get() for _ in strangers} == {"made-up"}
            found = group.create_task(op.look_up(real))
            looking = group.create_task(asked.get())
            await asyncio.wait((found, looking), return_when=asyncio.FIRST_COMPLETED)
            over.set()
            looking.cancel()
        assert isinstance(found.result(), LocalSessions)
        await upstreams.aclose()


async def test_upstreams_follow_a_reload_and_keep_their_keys(folder: Path) -> None:
    """The keys that were read stay, for an upstream that is as it was."""
    path = written(folder, upstreams={"op": OP, "gone": OP})
    live = LiveConfiguration(path, {}, load(path, {}, FEATURES))
    record = UpstreamRecord()
    upstreams = ConfiguredUpstreams(live, record)
    before = upstreams.find_upstream("op")
    assert before is not None
    question = UpstreamSession(iss="https://op.example.com", sub="u1", sid="s1")
    same = (LocalSession(sub="u1", sid="s1", clients="*"),)
    assert await before.look_up(question) == LocalSessions(iss="https://login.example.com", sessions=same)
    changed = {**OP, "resolve": {"same_sub": {"prefix": "op|"}}}
    written(folder, upstreams={"op": OP, "new": changed})
    assert live.reload(requested=True)
    assert (after := upstreams.find_upstream("op")) is not None
    assert after.verifier is before.verifier
    assert upstreams.find_upstream("gone") is None
    assert (new := upstreams.find_upstream("new")) is not None
    assert await new.look_up(question) != await after.look_up(question)
    await upstreams.aclose()
    series = {sample.labels["upstream"] for family in record.families() for sample in family.samples}
    assert series == {"op", "gone", "new"}


# ── SQLAlchemy is an extra: only what asks a database of sessions needs it ────────────────────────────────────────


LOGIN = "https://login.example.com"
SQL = {"sql": {"url": "sqlite:///sessions.db", "preset": "duende"}}


def _settings(resolve: Mapping[str, object]) -> Settings:
    upstream = {"issuer": "https://up.example.org", "client_id": "acme", "iss": LOGIN, "resolve": resolve}
    return SETTINGS.model_validate({"upstreams": {"partner": upstream}})


def test_a_database_without_the_library_is_refused_with_the_way_out() -> None:
    """At the start, and not at the first sign-out. Who asks over HTTP, or nobody, needs none."""
    mistakes = check_upstreams(_settings(SQL), frozenset({"issuers"}), lambda _: False)
    assert [each.path for each in mistakes] == ["upstreams.partner.resolve.sql"]
    assert "pip install 'logout-notifier[postgresql]'" in mistakes[0].text
    assert check_upstreams(_settings({"same_sub": {}}), frozenset({"issuers"}), lambda _: False) == []
    assert check_upstreams(_settings(SQL), frozenset({"issuers"})) == []


# ── The test queries of `check` to session databases, and the log lines of tokens that end no session ─────────────


QUERY = "SELECT user AS sub, id AS sid, apps AS clients FROM sessions WHERE theirs = :sid"


@pytest.fixture
def database_folder(tmp_path: Path) -> Path:
    """A key, and a database of sessions."""
    (tmp_path / "key.pem").write_bytes(pem("ES256"))
    (tmp_path / "key.pem").chmod(0o600)
    with sqlite3.connect(tmp_path / "s.db") as database:
        database.execute("CREATE TABLE sessions (id TEXT, user TEXT, apps TEXT, theirs TEXT)")
    return tmp_path


def checked(database_folder: Path, sql: dict[str, Any], *options: str) -> tuple[int, list[dict[str, str]]]:
    """The exit status of `check`, and the mistakes."""
    op = {"issuer": "https://op.example.com", "client_id": "us", "resolve": {"sql": {"url": "sqlite:///s.db", **sql}}}
    config = {"issuers": {ISS: {"keys": [{"file": "key.pem"}]}}, "upstreams": {"op": op}}
    (database_folder / "n.json").write_text(json.dumps(config))
    done = notifier("check", "-c", "n.json", "--json", *options, cwd=database_folder)
    return done.returncode, json.loads(done.stdout)["mistakes"]


@pytest.mark.parametrize(
    ("sql", "phrase"),
    [
        ({"query": QUERY.replace("AS clients", "AS clinets")}, "there is no clinets; they are sub, sid, clients"),
        ({"query": QUERY.replace("SELECT user ", "SELECT usre ")}, "no such column: usre"),
        ({"query": QUERY.replace("FROM sessions", "FROM session")}, "no such table: session"),
        ({"query": "SELECT user AS sub FROM sessions WHERE id IS NOT NULL OR :sid = theirs"}, "that no session has"),
        ({"query": QUERY, "url": "sqlite:///missing.db"}, "cannot be asked"),
        ({"preset": "duende", "prefix": "op|"}, "ServerSideSessions"),
    ],
    ids=range(6),
)
def test_a_query_that_cannot_work_is_a_mistake(database_folder: Path, sql: dict[str, Any], phrase: str) -> None:
    """Else the first token finds it, and nobody is signed out. Offline nobody is asked."""
    with sqlite3.connect(database_folder / "s.db") as database:
        database.execute("INSERT INTO sessions VALUES ('s1', 'alice', '*', 'u1')")
    status, [mistake] = checked(database_folder, sql)
    assert (status, mistake["path"]) == (2, "upstreams.op.resolve.sql")
    assert phrase in mistake["text"]
    assert checked(database_folder, sql, "--offline") == (0, [])


def test_a_working_query_is_accepted(database_folder: Path) -> None:
    """Though it finds nobody."""
    assert checked(database_folder, {"query": QUERY}) == (0, [])


def test_a_token_that_ends_no_session_is_logged() -> None:
    """Each token; of browsers, which anybody may send with a made-up `sid`, one in a minute."""
    now = [0.0]
    record = UpstreamRecord(lambda: now[0])
    looked = SessionsLookedUp(upstream="op", result="no_session", text="none has the sub and sid of the token")
    with capture_logs() as lines:
        record.observe(looked)
        record.observe(looked)
        record.observe(SessionsLookedUp(upstream="op", result="found"))
        for _ in range(5):
            record.on_request("op", UpstreamResult.NO_SESSION)
        now[0] = 60.0
        record.on_request("op", UpstreamResult.NO_SESSION)
    assert [(line["event"], line["log_level"], line["upstream"]) for line in lines] == [
        ("upstream_no_session", "info", "op")
    ] * 4
    assert [line["reason"] for line in lines] == [looked.text] * 2 + ["none has the sid that a browser came with"] * 2
    assert "upstreams.op.resolve" in lines[0]["hint"]
