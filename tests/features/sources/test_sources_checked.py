"""The warnings of `check` on sources: dangerous settings, and sources missing among an issuer's publishers."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from notifier.model.client import Algorithm
from notifier.tokens.key_files import generate_key
from tests.cli.in_process import notifier
from tests.cli.test_configuration import BOUND, ISS, write
from tests.features.sources.sns_stand_in import ARN

MAPPED = {"issuer": ISS, "event": {"sub": "user", "clients": "apps[].{client_id: id, backchannel_logout_uri: url}"}}
POSTS = {"http": {"header": "Authorization", "value_file": "secret"}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A key, a token bound to the issuer, and a secret of a source."""
    for name, content in {
        "k.pem": generate_key(Algorithm.ES256).decode(),
        "bound.yaml": yaml.safe_dump([BOUND]),
        "secret": "s3cret-s3cret-s3cret-s3cret-s3cret",
    }.items():
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o600)
    return tmp_path


def warnings(folder: Path, sections: dict[str, Any]) -> list[tuple[str, str]]:
    """The place and the text of each warning."""
    write(folder, sections)
    done = notifier("check", "-c", "n.yaml", "--offline", "--json", cwd=folder)
    assert done.returncode == 0, done.stdout
    return [(each["path"], each["text"]) for each in json.loads(done.stdout).get("warnings", ())]


def of_publishers(folder: Path, sections: dict[str, Any]) -> list[str]:
    """Return the warnings on the issuer's publishers."""
    return [text for path, text in warnings(folder, sections) if path.endswith("publishers")]


def test_an_exchange_of_the_brokers_own(folder: Path) -> None:
    """Whoever may write to it may sign people out."""
    bind = [{"exchange": "Shop:Ended"}, {"exchange": "amq.topic", "routing_key": "KK.#"}]
    source = {"issuer": ISS, "event": {"sub": "user", "clients": "clients"}, "bind": bind}
    found = [path for path, _ in warnings(folder, {"sources": {"shop": source}}) if path.startswith("sources.")]
    assert found == ["sources.shop.bind[1]"]
    assert "with write permission for amq.topic" in notifier("check", "-c", "n.yaml", cwd=folder).stdout


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({"sources": {"v3": {"preset": "identityserver4_v3", "issuer": ISS, "bind": [{"exchange": "X"}]}}}, "[USER]"),
        ({"api": {}, "sources": {"web": {**MAPPED, **POSTS}}}, "publishers: [web]"),
    ],
)
def test_an_issuer_that_relies_on_addresses_of_a_source(folder: Path, more: dict[str, Any], found: str) -> None:
    """The warning names who speaks for it."""
    [text] = of_publishers(folder, {"issuers": {ISS: {"keys": [{"file": "k.pem"}]}}, **more})
    assert found in text


def test_senders_that_publishers_leave_out(folder: Path) -> None:
    """A list of publishers refuses all others, also senders that the files permit."""
    issuer = {"keys": [{"file": "k.pem"}], "publishers": ["broker-user", "named"]}
    sources = {"web": {**MAPPED, **POSTS}, "named": {**MAPPED, **POSTS}}
    sections = {"issuers": {ISS: issuer}, "api": {"tokens_file": "bound.yaml"}, "sources": sources}
    *of_senders, of_publish = of_publishers(folder, sections)
    assert [text.split(":")[1] for text in of_senders] == [" add web", " add idp"]
    assert of_publish.startswith("does not name u, the user of the queue")


def test_what_no_signature_covers(folder: Path) -> None:
    """Headers beside a signed body, and types that Security Event Tokens and messages of SNS never have."""
    mapped = {"issuer": ISS, "event": {"sub": "user", "sid": '"$headers".sid', "clients": "'*'"}}
    hmac = {"hmac": {"header": "x-sig", "secret_file": "secret"}}
    sets = {"set": {"issuer": ISS, "jwks_uri": "https://id.example.com/jwks", "audience": "us"}}
    sources = {
        "one": mapped | {"http": hmac},
        "two": {"preset": "keycloak_ssf", "issuer": ISS, "http": sets},
        "three": mapped | POSTS,
        "four": {"preset": "keycloak_ssf", "issuer": ISS, "http": {"sns": {"topic_arn": ARN}}},
    }
    issuers = {ISS: {"keys": [{"file": "k.pem"}], "event_types": ["ended"]}}
    sections = {"sources": sources, "api": {"listen": "127.0.0.1:8080"}, "issuers": issuers}
    found = {path: text for path, text in warnings(folder, sections) if path.startswith("sources.")}
    assert set(found) == {"sources.one", "sources.two.http.set", "sources.four.http.sns"}
    assert "messages of SNS have no CloudEvents type" in found["sources.four.http.sns"]
    assert "reads $headers, which are not signed" in found["sources.one"]
    assert f'all are refused by issuers["{ISS}"].event_types' in found["sources.two.http.set"]


def test_a_websub_hub_whose_topic_is_not_named(folder: Path) -> None:
    """Any subscription is confirmed to whoever asks, so the configuration had better name it."""
    hmac = {"hmac": {"header": "x-sig", "secret_file": "secret"}}
    sources = {
        name: {"preset": "wso2", "issuers": {"x": ISS}, "http": {**hmac, **more}}
        for name, more in {"any": {}, "one": {"websub": {"topic": "t"}}}.items()
    }
    sections = {"sources": sources, "api": {"listen": "127.0.0.1:8080"}}
    found = {path: text for path, text in warnings(folder, sections) if path.startswith("sources.")}
    assert set(found) == {"sources.any.http"}
    assert "websub: {topic: …}" in found["sources.any.http"]


def test_an_administrator_taken_for_the_user(folder: Path) -> None:
    """A mapping of Okta's events that takes who caused it, always or for some users; others take the target."""
    proof = {"issuer": ISS, **POSTS}
    user = "target[?type=='User'] | [0].alternateId"
    own = {"sub": "actor.id", "sid": "authenticationContext.externalSessionId", "email": user, "clients": "'*'"}
    by_kind = "eventType == 'user.session.end' && actor.id || target[0].id"
    same, clear = f"target[0].id == actor.id && {own['sid']} || `null`", "eventType == 'user.session.clear'"
    sources = {
        "login": {**proof, "preset": "okta_hook", "event": {"sub": "actor.alternateId"}},
        "own": {**proof, "envelope": "data.events", "when": "eventType == 'user.lifecycle.suspend'", "event": own},
        "plain": {**proof, "preset": "okta_hook"},
        "right": {**proof, "preset": "okta_hook", "event": {"sub": user}},
        "without_id": {**proof, "preset": "okta_hook", "event": {"sub": f"({user}) || actor.alternateId"}},
        "first": {**proof, "preset": "okta_hook", "event": {"sub": "actor.id || target[0].id"}},
        "by_kind": {**proof, "preset": "okta_hook", "event": {"sub": by_kind}},
        "target": {**proof, "preset": "okta_hook", "when": clear, "event": {"sub": by_kind}},
        "same": {**proof, "preset": "okta_hook", "event": {"sid": same}},
        "other": {**proof, "event": {"sub": "actor.id", "clients": "'*'"}},
        "all": {**proof, "envelope": "data.events", "event": {"sub": "actor.alternateId", "clients": "'*'"}},
        "stream": {**proof, "when": "detail.eventType == 'x'", "event": own | {"sub": "detail.actor.id"}},
    }
    found = warnings(folder, {"sources": sources, "api": {"listen": "127.0.0.1:8080"}})
    assert [path for path, text in found if "`actor`" in text] == [
        "sources.all.event.sub", "sources.by_kind.event.sub", "sources.first.event.sub", "sources.login.event.sub",
        "sources.own.event.sub", "sources.own.event.sid", "sources.stream.event.sub", "sources.stream.event.sid",
        "sources.without_id.event.sub",
    ]  # fmt: skip


def test_okta_has_no_websub_hub(folder: Path) -> None:
    """Its verification request is another one."""
    source = {"preset": "okta_hook", "issuer": ISS, "http": {**POSTS["http"], "websub": {"topic": "t"}}}
    write(folder, {"sources": {"okta": source}, "api": {"listen": "127.0.0.1:8080"}})
    done = notifier("check", "-c", "n.yaml", "--offline", cwd=folder)
    assert done.returncode != 0
    assert "remove http.websub" in done.stderr
