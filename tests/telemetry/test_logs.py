"""Test logs: one wide line per attempt, and no secret in any line."""

import asyncio
import io
import json
import logging
import os
import re
import subprocess
import sys
from typing import Any, Literal

import pytest
import structlog

from notifier.delivery import facts
from notifier.delivery.facts import (
    AlreadyDelivered,
    Attempted,
    DeadLettered,
    Deferred,
    EventTaken,
    Fact,
    IgnoredOverrides,
    MembersMisspelt,
    Skipped,
    Unexpected,
)
from notifier.model.delivery import Delivery
from notifier.model.outcome import Cause, DeadReason, Delivered, Failed, Reason, Refused
from notifier.model.record import copy_record
from notifier.model.redaction import redact
from notifier.model.registry import Registry
from notifier.model.session_ended import MisspeltMember
from notifier.service.run_command import build_tracing
from notifier.telemetry.audit import operating_user, write_audit
from notifier.telemetry.log_output import configure
from notifier.telemetry.log_stream import MAX_WAITING_CHARACTERS, current_output
from notifier.telemetry.logs import LogObserver, SubjectHash, Subjects, clip
from notifier.telemetry.metrics import Metrics
from tests.support.outcome_facts import attempted

ISS = "https://id.example.com"
SUB, SID = "raw-sub-77", "raw-sid-88"
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJyYXctc3ViIn0.c2lnbmF0dXJl-_"
KEY = b"k" * 32


def attempt(met: Delivered | Refused | Failed, **more: Any) -> Attempted:
    delivery = Delivery(
        id="d",
        event_id="evt-1",
        id_given=True,
        iss=ISS,
        client_id="shop",
        sub=more.pop("sub", SUB),
        sid=SID,
        publisher="idp",
    )
    return attempted(delivery, met, **{"number": 2, "jti": "jti-1", "seconds": 0.0123, **more})


def captured(level: str = "info", log_format: Literal["json", "console"] = "json") -> io.StringIO:
    """Capture the log from now on."""
    stream = io.StringIO()
    configure(level, log_format, stream=stream)
    return stream


def lines_of(*facts: Fact, subject: Subjects = "hash") -> list[dict[str, Any]]:
    stream = captured("debug")
    observer = LogObserver(subject=subject, hashing=SubjectHash(KEY))
    for fact in facts:
        observer.observe(fact)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_attempt_is_one_wide_line() -> None:
    """Client, outcome, duration and next step, in one JSON object."""
    [line] = lines_of(attempt(Failed(reason=Reason.SERVER_ERROR, status=503, text="busy"), next_due=1_767_225_600.25))
    assert line.pop("time")
    assert line == {
        "event": "attempt", "level": "info", "event_id": "evt-1", "iss": ISS, "client_id": "shop", "publisher": "idp",
        "attempt": 2, "jti": "jti-1", "outcome": "failed", "reason": "server_error", "status": 503, "seconds": 0.0123,
        "next_due": "2026-01-01T00:00:00.250Z", "sub": SubjectHash(KEY).log_id(SUB),
        "sid": SubjectHash(KEY).log_id(SID), "error": "busy",
    }  # fmt: skip


def test_fast_path_equals_structlog() -> None:
    """The attempt's line bypasses structlog's loggers, since there are thousands a second: the result is the same."""
    fact, streams = attempt(Failed(reason=Reason.SERVER_ERROR, status=503, text=f"busy {TOKEN}")), []
    for quick in (True, False):
        streams.append(captured())
        LogObserver(hashing=SubjectHash(KEY), logger=None if quick else structlog.get_logger().bind()).observe(fact)
    brief, whole = (json.loads(stream.getvalue()) for stream in streams)
    assert re.sub(r"\d", "0", brief.pop("time")) == re.sub(r"\d", "0", whole.pop("time"))
    assert list(brief.items()) == list(whole.items())
    assert "[token]" in brief["error"]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_the_level_is_kept(log_format: Literal["json", "console"]) -> None:
    """At `warning` attempts are not logged, by the fast path either; dead letters are."""
    stream = captured("warning", log_format)
    observer = LogObserver(hashing=SubjectHash(KEY))
    observer.observe(attempt(Failed(reason=Reason.SERVER_ERROR, status=503, text="busy")))
    assert stream.getvalue() == ""
    observer.observe(DeadLettered(iss=ISS, client_id="shop", event_id="e", reason=DeadReason.EXPIRED, text=""))
    assert "dead_letter" in stream.getvalue()


def test_delivered_attempt_has_no_response_text() -> None:
    """Response texts of successes are not needed."""
    [line] = lines_of(attempt(Delivered(status=200, text="welcome")))
    assert line["outcome"] == "delivered"
    assert "error" not in line


def test_level_of_each_fact() -> None:
    """Dead letters, malformed events and the first deferral for an internal fault are warnings; attempts are info."""
    who: dict[str, Any] = {"iss": ISS, "client_id": "shop", "event_id": "evt-1"}
    told = lines_of(
        DeadLettered(**who, reason=DeadReason.REFUSED, text="410"),
        Deferred(**who, cause=Cause.SLOT, due=1.0),
        Deferred(**who, cause=Cause.SIGNING, due=1.0, text="no key is due", first=True),
        Deferred(**who, cause=Cause.SIGNING, due=1.0, text="no key is due"),
        EventTaken(result="accepted", event_id="evt-1", iss=ISS, publisher="idp", deliveries=1, dated=True),
        EventTaken(result="malformed", event_id="", iss="", publisher=None, deliveries=0, dated=False),
        Skipped(**who),
        attempt(Delivered(status=200)),
    )
    assert [(line["event"], line["level"]) for line in told] == [
        ("dead_letter", "warning"),
        ("deferral", "debug"),
        ("deferral", "warning"),
        ("deferral", "debug"),
        ("event", "debug"),
        ("event", "warning"),
        ("skipped", "debug"),
        ("attempt", "info"),
    ]
    assert told[0]["reason"] == "refused"
    assert told[2]["error"] == "no key is due"
    assert told[5]["result"] == "malformed"


def test_each_fact_is_counted_or_logged() -> None:
    """Except facts that only replays count; features count and log their own facts."""
    counted = Metrics(lambda: Registry(issuers={}, clients={})).observe.handlers
    logged = LogObserver(hashing=SubjectHash(KEY)).observe.handlers
    bases = {Fact, facts.ClientFact, facts.EventClientFact}
    kinds = {kind for kind in vars(facts).values() if isinstance(kind, type) and issubclass(kind, Fact)} - bases
    assert kinds - {*counted, *logged} == {AlreadyDelivered}


def test_members_that_were_dropped_are_a_warning() -> None:
    """By name, without their values."""
    taken: dict[str, Any] = {"event_id": "e", "iss": ISS, "publisher": "idp", "deliveries": 1, "dated": False}
    event, unread = lines_of(EventTaken(result="accepted", unread=("ended_at", "time"), **taken))
    assert (event["level"], unread["level"], unread["event"]) == ("debug", "warning", "members_unread")
    assert (unread["members"], unread["event_id"]) == ("ended_at, time", "e")


def test_misspelt_member_is_a_warning_once_per_publisher() -> None:
    """A source's messages count by their source. The first of 100 pairs is forgotten for another one."""

    def misspelt(publisher: str, written: str = "sessionid", source: str | None = None) -> MembersMisspelt:
        members = (MisspeltMember(written=written, meant="sid"), MisspeltMember(written="user", meant="sub"))
        return MembersMisspelt(iss=ISS, event_id="e", publisher=publisher, source=source, members=members)

    lines = lines_of(misspelt("a"), misspelt("a", "session"), misspelt("b"), misspelt("b", source="theirs"))
    assert [(line["publisher"], line.get("source"), line["member"], line["meant"]) for line in lines] == [
        ("a", None, "sessionid", "sid"),
        ("a", None, "user", "sub"),
        ("b", None, "sessionid", "sid"),
        ("b", None, "user", "sub"),
        ("b", "theirs", "sessionid", "sid"),
        ("b", "theirs", "user", "sub"),
    ]
    assert {(line["event"], line["level"]) for line in lines} == {("member_misspelt", "warning")}
    most = [misspelt(f"p{n}") for n in range(50)]
    assert len(lines_of(*most, *most)) == 100
    assert len(lines_of(*most, misspelt("more"), *most[2:], most[0])) == 104


def test_ignored_members_of_an_event_are_a_warning_with_the_remedy() -> None:
    """The members, the clients and the setting to change, or that no publisher is trusted. Foreign names are cut."""
    said: dict[str, Any] = {
        "iss": ISS, "event_id": "evt-1", "clients": 7,
        "members": {
            "shop": ["backchannel_logout_uri"],
            "b\nk": ["backchannel_logout_uri", "id_token_signed_response_alg"],
        },
    }  # fmt: skip
    by, denied = lines_of(
        IgnoredOverrides(**said, publisher="app", source="theirs", denied=False),
        IgnoredOverrides(**said, publisher=None, denied=True),
    )
    assert (by["event"], by["level"], by["publisher"], by["source"]) == ("members_ignored", "warning", "app", "theirs")
    assert by["clients"] == 7
    assert by["members"] == "shop: backchannel_logout_uri; b·k: backchannel_logout_uri, id_token_signed_response_alg"
    assert "registry.inline" in by["hint"]
    assert "publishers" in by["hint"]
    assert "registry.inline is deny" in denied["hint"]


def test_long_reason_keeps_the_remedy() -> None:
    """It is last: after the names of an issuer and a client, and the reason."""
    who: dict[str, Any] = {"iss": ISS, "client_id": "shop", "event_id": "evt-1"}
    text = f"{'w' * 500}; register it, then replay"
    for line in lines_of(
        DeadLettered(**who, reason=DeadReason.UNKNOWN_CLIENT, text=text),
        Deferred(**who, cause=Cause.ORIGIN, due=1.0, text=text, first=True),
    ):
        assert line["error"] == text
    [line] = lines_of(Deferred(**who, cause=Cause.UNKNOWN, due=1.0, text="no such client", hint=text, first=True))
    assert line["hint"] == text


def test_internal_error_is_logged_by_type_and_frames() -> None:
    """An exception's own text may contain a `sub`, so the log has its type and the frames."""

    def fail() -> Exception:
        empty: dict[str, str] = {}
        try:
            empty[SUB] += ""
        except KeyError as error:
            return error
        raise AssertionError

    [line] = lines_of(Unexpected(iss=ISS, client_id="shop", event_id="evt-1", error=fail()))
    assert line["level"] == "error"
    assert line["error"] == "KeyError"
    assert "test_logs.py" in line["exception"]
    assert SUB not in json.dumps(line)


@pytest.mark.parametrize("subject", ["hash", "omit"])
def test_no_raw_sub_or_sid_in_any_line(subject: Subjects) -> None:
    """Not even if the client's answer contains the user."""
    text = f"no session {SID} of {SUB}, and {SUB} again"
    refused = attempt(Refused(reason=Reason.REFUSED, status=404, text=text))
    buried = DeadLettered(
        iss=ISS, client_id="shop", event_id="e", reason=DeadReason.REFUSED, text=text, delivery=refused.delivery
    )
    took, line, dead = lines_of(attempt(Delivered(status=200, text=text)), refused, buried, subject=subject)
    for told in (took, line, dead):
        assert SUB not in json.dumps(told)
        assert SID not in json.dumps(told)
    for told in (took, line):
        assert ("sub" in told) is (subject == "hash")
    assert line["error"] == dead["error"] == "no session [sid] of [sub], and [sub] again"


@pytest.mark.parametrize("sub", ["al\u200bice", "\u202ealice", "ali\u00adce"])
@pytest.mark.parametrize("quoted", ["{sub}", "alice", "al ice", "a\u2060lice"])
def test_sub_with_invisible_characters_is_hidden(sub: str, quoted: str) -> None:
    """In texts with and without these characters. A blank within the `sub` is another word."""
    fact = attempt(Refused(reason=Reason.REFUSED, status=404, text=f"no {quoted.format(sub=sub)}"))
    [line] = lines_of(copy_record(fact, delivery=copy_record(fact.delivery, sub=sub)))
    assert line["error"] == ("no al ice" if quoted == "al ice" else "no [sub]")


def test_raw_subjects_only_if_configured() -> None:
    """`subject: raw` is the operator's own decision."""
    [line] = lines_of(attempt(Delivered(status=200)), subject="raw")
    assert (line["sub"], line["sid"]) == (SUB, SID)


def test_the_hash_is_keyed() -> None:
    """The same key yields the same 16 digits in every process, another key others."""
    assert SubjectHash(KEY).log_id(SUB) == SubjectHash(KEY).log_id(SUB)
    assert len(SubjectHash(KEY).log_id(SUB)) == 16
    assert SubjectHash(KEY).log_id(SUB) != SubjectHash(b"other").log_id(SUB)
    assert SubjectHash().log_id(SUB) != SubjectHash().log_id(SUB)


def test_generated_key_is_logged_at_start() -> None:
    """Without a key each process hashes differently, and the log names the setting that fixes it."""
    stream = captured()
    LogObserver()
    line = json.loads(stream.getvalue())
    assert line["event"] == "log_key_made_up"
    assert "log.subject_key_file" in line["hint"]


@pytest.mark.parametrize(
    "leak",
    [
        TOKEN,
        TOKEN[:40],
        f"logout_token={TOKEN}&x=1",
        "amqp://notifier:s3cret-w0rd@broker:5672/",
        "amqp://:s3cret-w0rd@broker:5672/",
        "amqps://notifier:s3cret@w0rd@broker/vhost",
        "Authorization: Bearer opaque-t0ken-abc",
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEI\n-----END PRIVATE KEY-----",
        "-----BEGIN RSA PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEI",
    ],
)
def test_secrets_are_redacted_in_the_finished_line(leak: str) -> None:
    """The last defence, however a secret was logged: as a value, nested, in an exception, or by a library."""
    stream = captured()
    logger = structlog.get_logger()
    logger.info("leak", value=leak, nested={"list": [leak]})
    logging.getLogger("aiohttp.client").warning("connecting to %s", leak)
    logger.error("failed", exc_info=ValueError(leak))
    LogObserver(hashing=SubjectHash(KEY)).observe(attempt(Refused(reason=Reason.REFUSED, status=403, text=leak)))
    assert len([json.loads(line) for line in stream.getvalue().splitlines()]) == 4
    for secret in ("eyJ", "s3cret", "w0rd", "opaque-t0ken", "MC4CAQAwBQ"):
        assert secret not in stream.getvalue()


def test_other_texts_are_not_redacted() -> None:
    """Redaction keeps addresses, users and short words."""
    line = '{"iss": "https://id.example.com:8443/realms/a", "to": "ops@example.com", "text": "eyJa"}'
    assert redact(line) == line
    assert redact("amqp://notifier:pw@broker/") == "amqp://notifier:[password]@broker/"


def test_token_at_the_end_of_a_shortened_text_is_redacted() -> None:
    """The text is redacted before it is shortened, so that no part of a token remains."""
    [line] = lines_of(attempt(Refused(reason=Reason.REJECTED_TOKEN, status=400, text="x" * 195 + TOKEN)))
    assert "eyJ" not in line["error"]


def test_the_client_s_text_is_short_and_printable() -> None:
    """A client may answer anything: control characters, terminal escapes, megabytes."""
    [line] = lines_of(
        attempt(Refused(reason=Reason.REFUSED, status=403, text="\x1b[31m\r\nfake line\u202e" + "y" * 900))
    )
    assert line["error"].isprintable()
    assert len(line["error"]) == 200
    assert clip("tab\there") == "tab·here"


def test_warnings_of_libraries_have_the_same_format() -> None:
    """One format for all; at debug level libraries are logged from info on, never their frames."""
    stream = captured()
    library = logging.getLogger("aiohttp.client")
    library.info("chatter")
    library.warning("Connection %s lost", "a")
    [line] = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (line["event"], line["level"], line["logger"]) == ("Connection a lost", "warning", "aiohttp.client")
    configure("debug", "json", stream=stream)
    library.debug("frame with a body")
    assert "frame" not in stream.getvalue()


def test_broken_stream_loses_only_lines() -> None:
    """A full disk or a closed reader loses log lines, never a delivery."""

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(text[:0])

    configure("info", "json", stream=Gone())
    LogObserver(hashing=SubjectHash(KEY)).observe(attempt(Delivered(status=200)))
    logging.getLogger("aiohttp.client").warning("lost")


def test_a_line_of_the_interpreter_s_end_does_not_hang() -> None:
    """No thread starts any more when the last objects are deleted, such as a connector that was not closed."""
    program = """
import gc, logging
from notifier.telemetry.log_output import configure
class Connector:
    def __init__(self): self.cycle = self
    def __del__(self): logging.getLogger("aiohttp.client").warning("unclosed")
configure("info", "json", stream=open("/dev/null", "w"))
gc.disable()
Connector()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


async def test_unread_stream_drops_lines_but_keeps_audit_lines() -> None:
    """Nobody reads the pipe: the loop goes on, lines beyond 1 MiB are dropped and counted, audit lines wait."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream, os.fdopen(reader, encoding="utf-8") as unread:
        configure("info", "json", stream=stream)
        output, log = current_output(), structlog.get_logger()
        assert output is not None
        for number in range(2 * MAX_WAITING_CHARACTERS // 1000):
            log.info("line", number=number, text="x" * 1000)
            await asyncio.sleep(0)
        dropped = output.dropped
        assert MAX_WAITING_CHARACTERS // 1000 * 0.8 < dropped < MAX_WAITING_CHARACTERS // 1000 * 1.2
        for number in range(500):
            write_audit("acted", who="op", number=number, text="x" * 1000)
            await asyncio.sleep(0)
        assert output.dropped == dropped
        lines = await asyncio.to_thread(
            lambda: [json.loads(unread.readline()) for _ in range(2 * MAX_WAITING_CHARACTERS // 1000 - dropped + 500)]
        )
        assert [line["number"] for line in lines if line["event"] == "acted"] == [*range(500)]
        log.info("taken again")
        assert json.loads(await asyncio.to_thread(unread.readline))["event"] == "taken again"
        configure()


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_lines_contain_no_control_characters(log_format: Literal["console", "json"]) -> None:
    """In any bound value and in lines of libraries; frames keep their lines."""
    stream = captured("info", log_format)
    bad = "\x1b]0;owned\x07\x9b6n\x7f\u202e\u2066\u2028\n"
    structlog.get_logger().warning("lost", reason=bad, shown=[bad])
    logging.getLogger("library").warning("text %s", bad)
    structlog.get_logger().error("crashed", exception="one\ntwo")
    written = stream.getvalue()
    assert {char for char in written if not char.isprintable()} == {"\n"}
    assert ("one\ntwo" in written) == (log_format == "console")


# ── Traces are exported only if the standard environment configures them ─────────────────────────────────────────────


@pytest.mark.parametrize(
    "environ",
    [{}, {"OTEL_SERVICE_NAME": "x"}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}],
)
def test_traces_are_off_by_default(environ: dict[str, str]) -> None:
    """No observer, so no cost."""
    assert build_tracing(environ) is None


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
def test_environment_enables_traces(name: str) -> None:
    """By OpenTelemetry's own variables."""
    assert build_tracing({name: "http://127.0.0.1:4318"}) is not None


@pytest.mark.parametrize("name", ["u" * 2000, "\udcff"])
def test_name_of_the_user_can_be_sent_and_stored(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is from the environment, where it has any length, and bytes of any encoding."""
    monkeypatch.setenv("LOGNAME", name)
    who = operating_user()
    assert (who.isprintable(), len(who) <= 210, who.endswith(" (claimed)")) == (True, True, True)
