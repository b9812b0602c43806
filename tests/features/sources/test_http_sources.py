"""The sources that take HTTP follow the configuration: their secrets, their keys, and their errors."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from multidict import CIMultiDict

from notifier.configuration.live_configuration import LiveConfiguration
from notifier.configuration.loading import load
from notifier.configuration.secret_files import secrets_of
from notifier.features import FEATURES
from notifier.features.sources.http_sources import HttpSources
from notifier.features.sources.sns_message import SnsMessage, SnsRefusal
from notifier.features.sources.sns_server import RETRY_AFTER_SECONDS, CertificateUnavailable, SnsServer
from notifier.features.sources.source_proofs import HeaderSecret, SetVerifier, SnsVerifier
from notifier.features.sources.source_settings import sources_of
from notifier.model.client import TlsFiles
from notifier.model.errors import ConfigurationError
from notifier.model.message import Lane, MessageDraft
from notifier.telemetry.metrics import Metrics
from notifier.tokens.security_event_token import KeysUnavailable, UnacceptedSet, VerifiedSet
from tests.features.sources.sns_stand_in import ARN, NOTIFICATION, standing_in
from tests.features.sources.sns_stand_in import signed as posted
from tests.system.loopback import LoopbackServer
from tests.tokens.key_folder import ISS, pem
from tests.tokens.transmitter import AUDIENCE, CLAIMS, ISSUER, key, public, signed

OKTA = {"preset": "okta_hook", "issuer": ISS, "http": {"header": "Authorization", "value_file": "okta"}}
MAPPED = {"event": {"sub": "user", "clients": "'*'"}, "issuer": ISS}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a key and two secrets."""
    (tmp_path / "key.pem").write_bytes(pem("ES256"))
    (tmp_path / "okta").write_text("Bearer one\n")
    (tmp_path / "wso2").write_text("two")
    (tmp_path / "clients.yaml").write_text("[]")
    return tmp_path


def write(folder: Path, sources: Mapping[str, object], **sections: object) -> Path:
    """The service's file with these sources."""
    path = folder / "notifier.json"
    whole: dict[str, object] = {
        "issuers": {ISS: {"keys": [{"file": "key.pem"}]}},
        "registry": {"file": "clients.yaml"},
        "api": {"listen": "127.0.0.1:0"},
        "egress": {"allow_http": True},
        "sources": sources,
        **sections,
    }
    path.write_text(json.dumps({name: section for name, section in whole.items() if section is not None}))
    return path


async def publish(lane: Lane, message: MessageDraft) -> None:
    """Take every message."""


def running(folder: Path, **sources: object) -> LiveConfiguration:
    path = write(folder, sources)
    return LiveConfiguration(path, {}, load(path, {}, FEATURES))


def opens(sources: HttpSources, value: str) -> bool:
    """Return whether the header's value is a valid proof of the source `okta`."""
    source = sources.find_source("okta")
    assert source is not None
    assert isinstance(source.proof, HeaderSecret)
    return source.proof.is_valid(CIMultiDict({"authorization": value}))


async def test_a_secret_is_rotated_without_a_restart(folder: Path) -> None:
    """Both are good while both are in the file. A file that is empty for a moment changes nothing."""
    live = running(folder, okta=OKTA)
    sources = HttpSources(live, publish)
    assert (opens(sources, "Bearer one"), opens(sources, "Bearer new")) == (True, False)
    for text, taken, expected in (
        ("\ufeffBearer new\r\n\r\n  Bearer one  \r\n", True, (True, True)),
        ("", False, (True, True)),
        ("Bearer new", True, (False, True)),
    ):
        (folder / "okta").write_text(text, encoding="utf-8")
        assert live.reload(requested=False) is taken
        assert (opens(sources, "Bearer one"), opens(sources, "Bearer new")) == expected
    await sources.aclose()


def test_the_counters_of_each_source_start_at_zero(folder: Path) -> None:
    """Of one that a reload adds, too. Without its zero a counter's first refusal is no increase, and no alert."""
    live = running(folder, okta=OKTA)
    sources = HttpSources(live, publish)
    events = Metrics(live.registry)
    events.add_sources(lambda: sources_of(live.current.settings))

    def zeros() -> set[tuple[str, str]]:
        families = (*sources.routes.families(), *events.families(exemplars=False))
        samples = [sample for family in families if "source_" in family.name for sample in family.samples]
        assert {sample.value for sample in samples} == {0.0}
        return {tuple(sample.labels.values()) for sample in samples}  # type: ignore[misc]

    refusals = {"400", "401", "404", "405", "408", "413", "415", "429", "500", "503", "malformed"}
    assert {("okta", each) for each in refusals} <= zeros()
    write(folder, {"okta": OKTA, "topic": {**MAPPED, "http": {"sns": {"topic_arn": ARN}}}})
    assert live.reload(requested=False)
    assert {("topic", each) for each in refusals} <= zeros()


def test_mistakes_name_the_setting_and_never_the_secret(folder: Path) -> None:
    """All at once."""
    (folder / "okta").write_text(" \n")
    (folder / "wso2").write_text("s3cret-a\ns3cret-b\ns3cret-c\n")
    hmac = {"hmac": {"header": "X-Sig", "secret_file": "wso2"}}
    with pytest.raises(ConfigurationError) as raised:
        load(write(folder, {"okta": OKTA, "wso2": {**MAPPED, "http": hmac}}), {}, FEATURES)
    found = {mistake.path: mistake.text for mistake in raised.value.mistakes}
    assert set(found) == {"sources.okta.http.value_file", "sources.wso2.http.hmac.secret_file"}
    assert "is empty" in found["sources.okta.http.value_file"]
    assert "has 3 lines" in found["sources.wso2.http.hmac.secret_file"]
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("http", "start"),
    [
        ({"header": "Authorization"}, "sources.okta.http: header and value_file belong together"),
        ({"value_file": "okta"}, "sources.okta.http: header and value_file belong together"),
        ({"header": "two words", "value_file": "okta"}, "sources.okta.http.header"),
        ({"header": "A", "value_file": "missing"}, "sources.okta.http.value_file"),
        ({}, "sources.okta.http: needs one of header, hmac, set, sns"),
        ({"hmac": {"header": "A", "secret_file": "wso2", "algorithm": "md5"}}, "sources.okta.http.hmac.algorithm"),
        (
            {"header": "A", "value_file": "okta", "hmac": {"header": "A", "secret_file": "wso2"}},
            "sources.okta.http: needs one of header, hmac, set, sns; it has header and hmac",
        ),
        ({"sns": {"topic_arn": "logouts"}}, "sources.okta.http.sns.topic_arn"),
        ({"sns": {"topic_arn": ARN.replace("eu-west-1", "evil.example/?")}}, "sources.okta.http.sns.topic_arn"),
        ({"sns": {"topic_arn": f"{ARN}\n"}}, "sources.okta.http.sns.topic_arn"),
        ({"sns": {"topic_arn": ARN.replace("sns", "sqs")}}, "sources.okta.http.sns.topic_arn"),
    ],
    ids=range(11),
)
def test_a_proof_is_one_and_whole(folder: Path, http: object, start: str) -> None:
    """Found at the start."""
    with pytest.raises(ConfigurationError) as raised:
        load(write(folder, {"okta": {**MAPPED, "http": http}}), {}, FEATURES)
    assert any(str(mistake).startswith(start) for mistake in raised.value.mistakes)


def test_secrets_of_sources_are_listed(folder: Path) -> None:
    """`check` and workers look at who may read them; none is in a representation; without `api` there is no use."""
    loaded = load(write(folder, {"okta": OKTA}, api=None), {}, FEATURES)
    assert secrets_of(loaded.settings, loaded.registry, loaded.parts)["sources.okta.http.value_file"] == folder / "okta"
    assert "Bearer one" not in repr(loaded)
    assert [warning.path for warning in loaded.warnings] == ["sources.okta.http"]


async def test_sns_certificates_follow_the_current_egress_rules(folder: Path, tmp_path: Path) -> None:
    """The topic and the egress rules follow a reload, and the certificates outlive it."""
    of = {"topic": {**MAPPED, "http": {"sns": {"topic_arn": ARN}}}}
    async with standing_in(tmp_path) as sns:
        live = running(folder, **of)
        tls = TlsFiles(ca_file=tmp_path / "sns/ca.pem")
        now = [0.0]
        server = SnsServer(
            lambda: live.current.settings.template().route.egress, resolver=sns, tls=tls, monotonic=lambda: now[0]
        )
        sources = HttpSources(live, publish, server)

        async def verify(body: bytes) -> object:
            source = sources.find_source("topic")
            assert source is not None
            assert isinstance(source.proof, SnsVerifier)
            return await source.proof.verify(body)

        assert isinstance(await verify(posted()), CertificateUnavailable)  # no loopback without egress.allow
        write(folder, of, egress={"allow": ["127.0.0.0/8"]})
        assert live.reload(requested=False)
        now[0] += RETRY_AFTER_SECONDS
        assert isinstance(await verify(posted()), SnsMessage)
        write(folder, {"topic": {**MAPPED, "http": {"sns": {"topic_arn": f"{ARN}-2"}}}})
        assert live.reload(requested=False)
        assert isinstance(await verify(posted()), SnsRefusal)
        assert isinstance(await verify(posted({**NOTIFICATION, "TopicArn": f"{ARN}-2"})), SnsMessage)
        assert len(sns.asked) == 1
        await sources.aclose()


async def test_keys_of_a_transmitter_outlive_a_reload_and_its_absence(folder: Path) -> None:
    """They are read over HTTP, once. Another audience in the settings counts at once."""
    asked: list[str] = []

    async def jwks(request: web.BaseRequest) -> web.Response:
        asked.append(request.path)
        return web.json_response({"keys": [public(key("P-256"))]})

    token = signed({**CLAIMS, "iat": int(time.time())})
    async with LoopbackServer(jwks) as server:
        settings: dict[str, Any] = {"issuer": ISSUER, "jwks_uri": f"{server.base}/certs", "audience": AUDIENCE}
        live = running(folder, kc={**MAPPED, "http": {"set": settings}})
        sources = HttpSources(live, publish)

        async def verify(token: bytes) -> VerifiedSet | UnacceptedSet | KeysUnavailable:
            source = sources.find_source("kc")
            assert source is not None
            assert isinstance(source.proof, SetVerifier)
            return await source.proof.verify(token)

        assert isinstance(await verify(token), VerifiedSet)
    write(folder, {"kc": {**MAPPED, "http": {"set": settings}}}, delivery={"timeout": "3s"})
    assert live.reload(requested=False)
    assert isinstance(await verify(token), VerifiedSet)
    assert asked == ["/certs"]
    write(folder, {"kc": {**MAPPED, "http": {"set": settings | {"audience": "else"}}}})
    assert live.reload(requested=False)
    assert isinstance(await verify(token), KeysUnavailable)  # of other settings: nothing is known before it is read
    await sources.aclose()


def test_only_sources_whose_server_sends_once_are_kept_in_a_spool(folder: Path) -> None:
    """Those presets whose server gives up within seconds, unless their events have addresses."""
    clients = {"clients": "[].{client_id: id, backchannel_logout_uri: uri}"}
    live = running(folder, okta=OKTA, addressed={**OKTA, "event": clients}, own={**MAPPED, "http": OKTA["http"]})
    assert HttpSources(live, publish).list_once() == ["source/okta"]
