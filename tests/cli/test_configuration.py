"""Test `check`, `keys`, `schema` and `log-id`: from an empty folder to a valid configuration, by their output."""

import json
import os
import shutil
import stat
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from joserfc.jwk import ECKey, KeySet

from notifier.model.moment import format_moment_for_people
from notifier.telemetry.logs import SubjectHash
from tests.cli.in_process import notifier
from tests.support.certificates import ODD_CERTIFICATES, authority, odd_certificate

ISS = "https://id.example.com"
OTHER = "https://other.example.com"


def write(folder: Path, more: dict[str, Any] | None = None, clients: list[dict[str, Any]] | None = None) -> Path:
    """Write a configuration of one issuer with the key `k.pem`, and its clients."""
    settings = {
        "queue": {"url": "amqp://u:s3cret@mq.example.com/"},
        "issuers": {ISS: {"keys": [{"file": "k.pem"}], "publishers": ["idp"]}},
        "registry": {"file": "clients.yaml"},
    }
    (folder / "n.yaml").write_text(yaml.safe_dump({**settings, **(more or {})}))
    (folder / "clients.yaml").write_text(yaml.safe_dump(clients or []))
    return folder / "n.yaml"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a folder with an ES256 key, by the command line, and its configuration."""
    folder = tmp_path_factory.mktemp("made")
    done = notifier("keys", "generate", "--alg", "ES256", "--out", "k.pem", cwd=folder)
    assert done.returncode == 0, done.stderr
    uri = "https://shop.example.com/backchannel-logout"
    shop = {"client_id": "shop", "backchannel_logout_uri": uri, "id_token_signed_response_alg": "ES256"}
    write(folder, clients=[shop, {"client_id": "mail"}])
    return folder


def test_key_file_is_private(made: Path) -> None:
    """Mode 0600, and it overwrites no file."""
    key = made / "k.pem"
    before = key.read_bytes()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    again = notifier("keys", "generate", "--alg", "ES256", "--out", "k.pem", cwd=made)
    assert again.returncode == 2
    assert "never overwritten" in again.stderr
    assert key.read_bytes() == before


def test_key_signs_after_a_day_by_default(tmp_path: Path) -> None:
    """The line for the configuration is printed; `check` reports the key's start, and that events wait until then."""
    moments = []
    for name, at in (
        ("day.pem", ()),
        ("once.pem", ("--at", "once")),
        ("set.pem", ("--at", "2099-01-31T06:00:00+01:00")),
    ):
        done = notifier("keys", "generate", "--alg", "ES256", "--out", name, *at, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("under issuers.<iss>.keys:")]
        (settings,) = yaml.safe_load(line.partition(":")[2])
        assert settings["file"] == name
        moments.append(settings.get("not_before"))
    in_a_day, at_once, then = moments
    assert abs(in_a_day.timestamp() - time.time() - 86_400) < 60
    assert at_once is None
    assert then == datetime(2099, 1, 31, 5, tzinfo=UTC)
    write(tmp_path, {"issuers": {ISS: {"keys": [{"file": "set.pem", "not_before": "2099-01-31T05:00:00Z"}]}}})
    checked = notifier("check", "-c", "n.yaml", cwd=tmp_path)
    assert "no key signs before 2099-01-31 05:00:00Z: until then its events wait" in checked.stdout
    assert "from 2099-01-31 05:00:00Z on" in checked.stdout
    wrong = notifier("keys", "generate", "--at", "tomorrow", cwd=tmp_path)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "2027-01-31T06:00:00Z" in wrong.stderr


def test_a_key_without_a_file_is_printed(tmp_path: Path) -> None:
    """Only the key is on stdout, to be piped into a secret store."""
    done = notifier("keys", "generate", "--alg", "EdDSA", cwd=tmp_path)
    assert done.stdout.startswith("-----BEGIN PRIVATE KEY-----")
    assert not done.stderr


def test_the_public_half_is_what_the_issuer_publishes(made: Path) -> None:
    """A JWK Set that another library reads, without the private number, with the kid that `check` prints."""
    done = notifier("keys", "jwks", "-c", "n.yaml", cwd=made)
    (key,) = KeySet.import_key_set(json.loads(done.stdout)).keys
    assert isinstance(key, ECKey)
    assert not key.is_private
    assert key.kid == key.thumbprint()
    assert str(key.kid) in notifier("check", "-c", "n.yaml", cwd=made).stdout


def test_one_of_several_issuers_must_be_chosen(made: Path) -> None:
    """Their keys are never published in one set."""
    issuers = {ISS: {"keys": [{"file": "k.pem"}]}, OTHER: {"keys": [{"file": "k.pem"}]}}
    (made / "two.yaml").write_text(yaml.safe_dump({"issuers": issuers}))
    asked = notifier("keys", "jwks", "-c", "two.yaml", cwd=made)
    assert asked.returncode == 2
    assert "--iss" in asked.stderr
    assert notifier("keys", "jwks", "-c", "two.yaml", "--iss", OTHER, cwd=made).returncode == 0
    assert notifier("keys", "jwks", "-c", "two.yaml", "--iss", "https://nobody", cwd=made).returncode == 2


def test_check_prints_a_summary(made: Path) -> None:
    """Issuers with kid and algorithm, clients, listeners, and the queue without its password."""
    done = notifier("check", "-c", "n.yaml", cwd=made)
    assert (done.returncode, done.stderr) == (0, "")
    for part in (ISS, ": ES256", "2 clients (1 without backchannel_logout_uri", "amqp://u@mq.example.com/", ":9464"):
        assert part in done.stdout
    assert "s3cret" not in done.stdout
    summary = json.loads(notifier("check", "-c", "n.yaml", "--json", cwd=made).stdout)
    assert summary["mistakes"] == []
    assert summary["issuers"][ISS]["clients"] == 2


def test_check_warns_of_a_new_key(made: Path, tmp_path: Path) -> None:
    """For a day after its file was written; a key with a later start has no warning."""
    (tmp_path / "k.pem").write_bytes((made / "k.pem").read_bytes())
    write(tmp_path)
    os.utime(tmp_path / "k.pem", (made_at := time.time() - 3600, made_at))
    until = format_moment_for_people(made_at + 86_400)
    assert f"may refuse it until {until}" in notifier("check", "-c", "n.yaml", cwd=tmp_path).stdout
    [key] = json.loads(notifier("check", "-c", "n.yaml", "--json", cwd=tmp_path).stdout)["issuers"][ISS]["keys"]
    assert key["first_day_until"] == until
    os.utime(tmp_path / "k.pem", (days_ago := time.time() - 90_000, days_ago))
    assert "may refuse it" not in notifier("check", "-c", "n.yaml", cwd=tmp_path).stdout


def test_check_warns_of_a_setting_without_effect(made: Path, tmp_path: Path) -> None:
    """Such as the address of a page that no browser may load, as text and as JSON; it is not an error."""
    (tmp_path / "k.pem").write_bytes((made / "k.pem").read_bytes())
    write(tmp_path, clients=[{"client_id": "shop", "frontchannel_logout_uri": "http://a.example/out"}])
    done = notifier("check", "-c", "n.yaml", cwd=tmp_path)
    assert done.returncode == 0
    assert "warning: clients.yaml[0].frontchannel_logout_uri: of client shop is not used" in done.stdout
    warnings = json.loads(notifier("check", "-c", "n.yaml", "--json", cwd=tmp_path).stdout)["warnings"]
    assert warnings[0]["path"] == "log.subject_key_file"  # the queue is RabbitMQ, and no key is configured
    assert [each["path"] for each in warnings[1:]].count("clients.yaml[0].frontchannel_logout_uri") == 1


def test_check_warns_of_a_short_subject_key(made: Path, tmp_path: Path) -> None:
    """A guessed key reveals each user in the logs."""
    (tmp_path / "k.pem").write_bytes((made / "k.pem").read_bytes())
    write(tmp_path, {"log": {"subject_key": "hunter2"}})
    done = notifier("check", "-c", "n.yaml", cwd=tmp_path)
    assert done.returncode == 0
    assert "warning: log.subject_key: has 7 bytes; it should have at least 16" in done.stdout
    assert "hunter2" not in done.stdout


_TOKEN = "a-token-of-more-than-twenty-characters"
_SHOP = {
    "client_id": "shop",
    "backchannel_logout_uri": "https://shop.example.com/",
    "id_token_signed_response_alg": "ES256",
}
_LIST = {"name": "apps", "issuer": ISS, "http": {"url": "https://apps.example.com/clients"}}
BOUND = {"name": "idp", "token": _TOKEN, "scopes": ["publish"], "issuers": [ISS]}


@pytest.mark.parametrize(
    ("more", "warning"),
    [
        ({}, "name its user or API token here"),
        ({"queue": {"url": "sqlite:n.db"}, "api": {}}, "name its user or API token here"),  # anybody on the machine
        ({"api": {"tokens_file": "bound.yaml"}}, None),
        ({"queue": {"url": "sqlite:n.db"}}, None),  # only the operator may write to the file
        ({"registry": {"inline": "allow"}}, None),
        ({"registry": {"inline": "deny"}}, None),
        ({"registry": {"file": "some.yaml"}}, None),
        ({"registry": {"sources": [_LIST]}}, None),  # it may set addresses later
    ],
)
def test_check_warns_of_an_issuer_that_relies_on_addresses_of_events(
    made: Path, tmp_path: Path, more: dict[str, Any], warning: str | None
) -> None:
    """If the registry has no address and the identity server is unknown. The warning has the remedy."""
    (tmp_path / "k.pem").write_bytes((made / "k.pem").read_bytes())
    (tmp_path / "k.pem").chmod(0o600)
    (tmp_path / "bound.yaml").write_text(yaml.safe_dump([BOUND]))
    (tmp_path / "bound.yaml").chmod(0o600)
    (tmp_path / "some.yaml").write_text(yaml.safe_dump([_SHOP]))
    write(tmp_path, {"issuers": {ISS: {"keys": [{"file": "k.pem"}]}}, **more})
    loaded = notifier("check", "-c", "n.yaml", "--offline", "--json", cwd=tmp_path)
    warnings = [each for each in json.loads(loaded.stdout).get("warnings", ()) if each["path"].endswith("publishers")]
    assert [warning in each["text"] for each in warnings if warning] == ([] if warning is None else [True]), (
        loaded.stdout
    )
    assert len(warnings) == (warning is not None)


def test_check_warns_of_issuers_that_share_a_key(made: Path, tmp_path: Path) -> None:
    """A receiver that checks the key and not the issuer accepts the tokens of both."""
    key = {"keys": [{"file": str(made / "k.pem")}]}
    write(tmp_path, {"issuers": {ISS: {**key, "publishers": ["a"]}, OTHER: {**key, "publishers": ["b"]}}})
    done = notifier("check", "-c", "n.yaml", cwd=tmp_path)
    assert done.returncode == 0
    assert f'warning: issuers["{OTHER}"].keys: the key ' in done.stdout
    assert f" is that of {ISS}, too: a receiver that checks the key and not the issuer accepts" in done.stdout
    assert "too: a receiver" not in notifier("check", "-c", "n.yaml", cwd=made).stdout
    (tmp_path / "copy.pem").write_bytes((made / "k.pem").read_bytes())
    write(tmp_path, {"issuers": {ISS: key, OTHER: {"keys": [{"file": "copy.pem", "kid": "another"}]}}})
    done = notifier("check", "-c", "n.yaml", cwd=tmp_path)
    assert f'warning: issuers["{OTHER}"].keys: the key another is that of {ISS}, too' in done.stdout


def test_check_reports_all_errors_at_once(made: Path) -> None:
    """Errors of the configuration and of the clients together; on stderr, or as JSON on stdout; exit 2; `run` too."""
    more = {"delivery": {"timeout": "5 parsecs"}, "outcome": "all", "api": {"tokens_file": "x" * 300}}
    (made / "wrong.yaml").write_text(yaml.safe_dump([{"client_id": "a", "backchannel_logout_uri": "/out"}]))
    more["registry"] = {"file": "wrong.yaml"}
    (made / "bad.yaml").write_text(yaml.safe_dump({"issuers": {ISS: {"keys": [{"file": "gone.pem"}]}}, **more}))
    done = notifier("check", "-c", "bad.yaml", cwd=made)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("notifier: 5 mistakes in the configuration\n")
    assert notifier("run", "-c", "bad.yaml", cwd=made).stderr == done.stderr
    paths = {f'issuers["{ISS}"].keys[0].file', "delivery.timeout", "outcome", "api.tokens_file"}
    for path in (*paths, "wrong.yaml[0] (a).backchannel_logout_uri: ", "did you mean outcomes?"):
        assert path in done.stderr
    as_json = notifier("check", "-c", "bad.yaml", "--json", cwd=made)
    assert (as_json.returncode, as_json.stderr) == (2, "")
    paths.add("wrong.yaml[0].backchannel_logout_uri")
    assert {mistake["path"] for mistake in json.loads(as_json.stdout)["mistakes"]} == paths


@pytest.mark.parametrize("document", ["event", "config", "clients", "tokens"])
def test_schemas_are_valid(document: str, made: Path) -> None:
    """JSON Schema 2020-12; and the configuration written above is valid."""
    schema = json.loads(notifier("schema", document, cwd=made).stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    fitting = {
        "event": {"iss": ISS, "sub": "alice", "clients": "*"},
        "config": yaml.safe_load((made / "n.yaml").read_text()),
        "clients": yaml.safe_load((made / "clients.yaml").read_text()),
        "tokens": [{"name": "idp", "token": "t" * 40, "scopes": ["publish"]}],
    }
    validator.validate(fitting[document])
    assert not validator.is_valid(42)


def test_log_id_prints_the_hash_of_the_logs(tmp_path: Path) -> None:
    """By the key that all workers share; without one the hash is useless."""
    (tmp_path / "key").write_text("one for all\n")
    (tmp_path / "n.yaml").write_text(yaml.safe_dump({"log": {"subject_key_file": "key"}}))
    done = notifier("log-id", "-c", "n.yaml", "alice", cwd=tmp_path)
    assert done.stdout == SubjectHash(b"one for all").log_id("alice") + "\n"
    without = notifier("log-id", "alice", cwd=tmp_path)
    assert without.returncode == 2
    assert "log.subject_key_file" in without.stderr
    raw = notifier("log-id", "-c", "n.yaml", "alice", cwd=tmp_path, settings={"NOTIFIER_LOG__SUBJECT": "raw"})
    assert raw.returncode == 2


def test_check_loads_the_tls_files_of_each_client(made: Path, tmp_path: Path) -> None:
    """Files that are unusable are mistakes, and with --offline warnings; each is named once, with its clients.

    An expired authority behind a valid certificate is accepted.
    """
    shutil.copy(made / "k.pem", tmp_path)
    ours = authority(tmp_path / "ca")
    shutil.copy(ours.issue("notifier", expired=True), tmp_path / "old.pem")
    shutil.copy(ours.ca_file, tmp_path / "ca.pem")
    shutil.copy(ours.issue_with_expired("valid"), tmp_path / "valid.pem")
    (tmp_path / "empty.pem").write_text("")
    tls = {"a": {"ca_file": "empty.pem"}, "b": {"ca_file": "empty.pem"}, "c": {"cert_file": "k.pem"}}
    tls |= {"d": {"ca_file": "ca.pem", "cert_file": "old.pem"}, "g": {"cert_file": "valid.pem"}}
    for nth, kind in enumerate(ODD_CERTIFICATES):  # OpenSSL loads them
        (tmp_path / f"odd{nth}.pem").write_text(odd_certificate(kind))
        tls |= {f"e{nth}": {"cert_file": f"odd{nth}.pem"}, f"f{nth}": {"ca_file": f"odd{nth}.pem"}}
    clients = [
        {
            "client_id": name,
            "backchannel_logout_uri": f"https://{name}.example.com/logout",
            "id_token_signed_response_alg": "ES256",
            "notifier": {"tls": files},
        }
        for name, files in tls.items()
    ]
    config = write(tmp_path, clients=clients)
    unusable = [
        f"client 'a' of {ISS} (and 1 other): tls: {tmp_path}/empty.pem is empty; until it is corrected, deliveries",
        f"client 'c' of {ISS}: tls: {tmp_path}/k.pem holds PRIVATE KEY, and has no certificate",
    ]
    expired = f"client 'd' of {ISS}: tls: notifier's certificate {tmp_path}/old.pem expired at 20"
    found = notifier("check", "-c", config, cwd=tmp_path)
    assert found.returncode == 2
    assert [text for text in unusable if text not in found.stderr] == []
    started = notifier("check", "--offline", "-c", config, cwd=tmp_path)
    assert started.returncode == 0
    assert [text for text in (*unusable, expired) if f"warning: {text}" not in started.stdout] == [], started.stdout
    assert "valid.pem" not in started.stdout


def test_check_lists_unusable_tls_files_beside_a_missing_one(made: Path, tmp_path: Path) -> None:
    """Of other clients, of the listeners, and each member of one section."""
    shutil.copy(made / "k.pem", tmp_path)
    (tmp_path / "empty.pem").write_text("")
    own = {"cert_file": "empty.pem", "key_file": "empty.pem", "ca_file": "k.pem"}
    tls = {"a": {"ca_file": "gone.pem"}, "b": {"ca_file": "k.pem"}, "c": own}
    clients = [
        {"client_id": name, "backchannel_logout_uri": "https://a.example.com/", "notifier": {"tls": files}}
        for name, files in tls.items()
    ]
    listener = {"cert_file": "k.pem", "key_file": "empty.pem", "client_ca_file": "empty.pem"}
    config = write(tmp_path, {"web": {"tls": listener}}, clients)
    found = notifier("check", "-c", config, "--json", cwd=tmp_path)
    texts = {mistake["path"]: mistake["text"] for mistake in json.loads(found.stdout)["mistakes"]}
    no_certificate = f"{tmp_path}/k.pem holds PRIVATE KEY, and has no certificate"
    assert texts["clients.yaml[0].notifier.tls.ca_file"].startswith("there is no file")
    assert no_certificate in texts[f"client 'b' of {ISS}"]
    assert no_certificate in texts[f"client 'c' of {ISS}"]
    assert f"; {tmp_path}/empty.pem is empty; " in texts[f"client 'c' of {ISS}"]
    assert no_certificate in texts["web.tls"]
    assert texts["web.tls"].count(f"{tmp_path}/empty.pem is empty") == 2
    offline = notifier("check", "--offline", "-c", config, "--json", cwd=tmp_path)
    named = {mistake["path"]: mistake["text"] for mistake in json.loads(offline.stdout)["mistakes"]}
    tolerated = [f"client 'b' of {ISS}", f"client 'c' of {ISS}"]
    assert named == texts | {path: f"{texts[path]} (alone, a warning)" for path in tolerated}
