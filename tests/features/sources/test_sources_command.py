"""`notifier sources`: what the sources are, and what a recorded message becomes, before anything is bound."""

import json
from pathlib import Path

import pytest

from tests.cli.in_process import notifier
from tests.features.sources.sns_stand_in import ARN, CONFIRMATION
from tests.features.sources.sns_stand_in import signed as posted
from tests.features.sources.source_documents import RECORDED
from tests.tokens.transmitter import AUDIENCE, CLAIMS, ISSUER, signed

ISS = "https://id.example.com"
SOURCES = {
    "duende": {"preset": "duende", "issuer": ISS, "bind": [{"exchange": "Shop:LoggedOut"}]},
    "own": {
        "issuer": ISS,
        "event": {"sub": '"$headers"."X-User"', "id": '"$properties".message_id', "clients": "apps"},
    },
    "hook": {
        "issuer": ISS,
        "event": {"sub": "user", "sid": "session", "clients": "'*'"},
        "http": {"hmac": {"header": "x-sig", "secret_file": "secret"}},
    },
    "any": {
        "issuer": ISS,
        "content_type": "json",
        "event": {"sub": "user", "clients": "'*'", "ended_at": "at"},
        "http": {"header": "authorization", "value_file": "secret"},
    },
    "either": {
        "issuer": ISS,
        "event": {"sub": "user", "clients": "'*'", "id": "user"},
        "http": {"header": "authorization", "value_file": "secret"},
        "bind": [{"exchange": "Shop:LoggedOut"}],
    },
    "kc": {
        "preset": "keycloak_ssf",
        "issuer": ISS,
        "http": {"set": {"issuer": ISSUER, "jwks_uri": f"{ISS}/keys", "audience": AUDIENCE}},
    },
    "topic": {
        "issuer": ISS,
        "event": {"sub": "from_json(Message).user", "clients": "'*'", "id": "MessageId"},
        "http": {"sns": {"topic_arn": ARN}},
    },
    "broken": {"preset": "duend", "issuer": ISS, "event": {"sub": "lowr(a)"}},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A configuration with these sources, and a message of Duende."""
    config = {"issuers": {ISS: {"keys": [{"file": "n.json"}]}}, "sources": SOURCES}
    (tmp_path / "n.json").write_text(json.dumps(config))
    (tmp_path / "secret").write_text("s3cret")
    whole = json.loads((RECORDED / "duende" / "mt8.5.12-is8-masstransit-context.json").read_text())
    (tmp_path / "message.json").write_text(json.dumps(whole["body"]))
    return tmp_path


def test_a_recorded_message_is_shown_as_the_event_that_it_becomes(folder: Path) -> None:
    """In words and as JSON; from a file, and by --header and --property what came beside it."""
    done = notifier("sources", "try", "-c", "n.json", "duende", "message.json", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "  clients   shop, mail\n" in done.stdout
    (folder / "own.json").write_text('{"apps": ["a", 5]}')
    beside = ("--header", "x-user: alice", "--property", "message_id=m-1", "--json")
    done = notifier("sources", "try", "-c", "n.json", "own", "own.json", *beside, cwd=folder)
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["events"]) == (1, [{"id": "m-1", "iss": ISS, "sub": "alice", "clients": ["a"]}])
    assert [mistake["path"] for mistake in answer["mistakes"]] == ["sources.own.event.clients[1]"]


EVENT = b'{"user": "alice", "at": "2026-01-31T12:00:00Z"}'
REVOKES = {**CLAIMS, "sub_id": {"format": "iss_sub", "iss": ISS, "sub": "alice"}}
TEXT = "--content-type=text/plain"
GRID = b'[{"eventType": "Microsoft.EventGrid.SubscriptionValidationEvent", "data": {"validationCode": "c"}}]'


@pytest.mark.parametrize(
    ("source", "body", "given", "status", "said"),
    [
        ("hook", EVENT, (), 0, ""),
        ("hook", EVENT, ("--content-type=application/scim+json; charset=utf-8",), 0, ""),
        (
            "hook",
            EVENT,
            (TEXT,),
            1,
            "answered 415: The body must be application/json, or of a type that ends with +json",
        ),
        ("hook", EVENT, ("--header=Content-Type: text/plain",), 1, "to take it, set content_type: json"),
        ("hook", EVENT, ("--header=ce-id: x",), 1, "answered 400: The header ce-id is not signed"),
        ("hook", EVENT + b" " * 200_000, (), 1, "answered 413: it has 200,047 bytes; at most 131,072 are allowed"),
        ("hook", GRID, (), 0, "answered 200 with its code: Event Grid"),
        ("any", EVENT, (TEXT, "--header=x-tenant: x"), 0, ""),
        ("either", EVENT, (TEXT,), 0, "warning: sources.either.http: a post of it is answered 415"),
        ("kc", signed(REVOKES), (), 0, ""),
        ("kc", json.dumps(REVOKES).encode(), (), 0, ""),
        (
            "kc",
            json.dumps(REVOKES).encode(),
            ("--content-type=application/json",),
            1,
            "must be application/secevent+jwt",
        ),
        ("kc", signed({**REVOKES, "aud": "else"}), (), 1, "answered 400: invalid_audience: aud does not name"),
        ("topic", posted(), (TEXT,), 0, ""),
        ("topic", posted(TopicArn=f"{ARN}-2"), (), 1, "answered 401: The message is not accepted: TopicArn is another"),
        ("topic", posted(CONFIRMATION), (), 0, "answered 200: it is about the subscription"),
        ("topic", posted(SigningCertURL="https://evil.example"), (), 0, "sources.topic.http.sns: its signature"),
    ],
    ids=range(17),
)
def test_a_post_is_judged_as_http_does(
    folder: Path, source: str, body: bytes, given: tuple[str, ...], status: int, said: str
) -> None:
    """But for its secret and its signature. One that might have come by an exchange, too, is only warned of."""
    (folder / "body").write_bytes(body)
    done = notifier("sources", "try", "-c", "n.json", source, "body", *given, cwd=folder)
    assert (done.returncode, "answered" in done.stderr) == (status, bool(said)), done.stderr
    assert said in done.stderr
    assert ("  sub       alice\n" in done.stdout) == (status == 0 and "answered 200" not in said)
    assert ("it would be refused" in done.stderr) == (status == 1)


@pytest.mark.parametrize(
    ("document", "warned"),
    [
        ({"user": "alice", "session": "s1"}, True),
        ({"user": "alice"}, False),  # a new id at each reading, which is told beside the event
    ],
)
def test_an_id_that_a_second_message_has_too_is_warned_of(folder: Path, document: object, warned: bool) -> None:
    """A digest of the session, without a time: the user's next sign-out of it would be taken for a copy."""
    (folder / "body").write_text(json.dumps(document))
    done = notifier("sources", "try", "-c", "n.json", "hook", "body", "--json", cwd=folder)
    assert done.returncode == 0
    paths = [warning["path"] for warning in json.loads(done.stdout)["warnings"]]
    assert paths == ["sources.hook.event.id"] * warned
    told = notifier("sources", "try", "-c", "n.json", "hook", "body", cwd=folder).stderr
    assert ("another message with the same content counts as a copy; read ended_at or id" in told) is warned
    (folder / "body").write_bytes(EVENT)
    for source in ("any", "either"):
        assert "copy" not in notifier("sources", "try", "-c", "n.json", source, "body", cwd=folder).stderr


def test_a_source_that_is_wrong_exits_2_with_each_mistake(folder: Path) -> None:
    """And so does one that does not exist, with the nearest name."""
    done = notifier("sources", "try", "-c", "n.json", "broken", "message.json", cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert "sources.broken.preset: there is no preset duend; did you mean duende?" in done.stderr
    assert "sources.broken.event.sub: there is no function lowr(); did you mean lower()?" in done.stderr
    done = notifier("sources", "try", "-c", "n.json", "duened", "message.json", cwd=folder)
    assert (done.returncode, "did you mean duende?" in done.stderr) == (2, True)


def test_sources_and_presets_are_listed(folder: Path) -> None:
    """The presets even without a configuration."""
    done = notifier("sources", "list", "-c", "n.json", cwd=folder)
    assert "  from    exchange Shop:LoggedOut\n" in done.stdout
    listed = json.loads(notifier("sources", "list", "--json", cwd=folder).stdout)
    assert (listed["sources"], "duende" in {each["preset"] for each in listed["presets"]}) == ([], True)
