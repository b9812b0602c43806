"""Relays of the configuration: what is refused, and what `check` and the doctor name."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from notifier.configuration.loading import LoadedConfiguration, load
from notifier.features import FEATURES
from notifier.features.upstreams.configured_relays import read_relay_keys
from notifier.features.upstreams.doctor_upstreams import examine_public_set, examine_relay
from notifier.features.upstreams.joined_keys import RELAY_MEMBER
from notifier.features.upstreams.relay_settings import relays_of
from notifier.model.errors import ConfigurationError
from notifier.network.http.issuer_documents import DocumentReader
from notifier.operators.doctor.doctor import Severity
from tests.cli.in_process import notifier
from tests.system.loopback import LoopbackServer
from tests.tokens.key_folder import pem
from tests.tokens.transmitter import key, public

ISS, OTHER = "https://id.example.com", "https://other.example.com"
KEYS = "https://dex.internal/keys"
OWN = "https://id.example.com/connect/notify/relays/op/backchannel-logout"
ISSUER: Mapping[str, Any] = {"keys": [{"file": "key.pem", "kid": "n1"}]}
TWO: Mapping[str, Any] = {ISS: ISSUER, OTHER: {"keys": [{"file": "other.pem"}]}}


def written(folder: Path, relay: Mapping[str, Any], *rows: Mapping[str, Any], **sections: Any) -> Path:
    """A configuration with a relay."""
    (folder / "key.pem").write_bytes(pem("ES256"))
    (folder / "other.pem").write_bytes(pem("RS256"))
    (folder / "clients.yaml").write_text(json.dumps([{**row, "id_token_signed_response_alg": "ES256"} for row in rows]))
    document = {
        "issuers": {ISS: ISSUER},
        "registry": {"file": "clients.yaml"},
        "egress": {"allow": ["127.0.0.0/8"]},
        "web": {"listen": "127.0.0.1:0"},
        "relays": {"op": relay},
        **sections,
    }
    (folder / "notifier.yaml").write_text(json.dumps({name: each for name, each in document.items() if each}))
    return folder / "notifier.yaml"


def loaded_from(
    folder: Path, relay: Mapping[str, Any], *rows: Mapping[str, Any], **sections: Any
) -> LoadedConfiguration:
    """The same, loaded."""
    return load(written(folder, relay, *rows, **sections), {}, FEATURES)


def upstream(issuer: str) -> Mapping[str, Any]:
    """An upstream that notifies all clients itself."""
    return {"issuer": issuer, "client_id": "us", "iss": ISS, "resolve": {"same_sub": {"prefix": "o|"}}}


@pytest.mark.parametrize(
    ("relay", "sections", "phrase"),
    [
        ({"issuer": "https://id.example.co"}, {}, "did you mean https://id.example.com?"),
        ({}, {"issuers": TWO}, "is not exactly one issuer"),
        ({}, {"issuers": {ISS: {**ISSUER, "publishers": ["idp"]}}}, "must name op too"),
        ({}, {"upstreams": {"op": upstream(OTHER)}}, "is also the name of an upstream"),
        ({}, {"upstreams": {"dex": upstream(ISS)}}, "clients would be notified twice"),
        ({"jwks_uri": "ftp://a"}, {}, "relays.op.jwks_uri"),
        ({"jwks_uri": "http://dex:5556/keys"}, {}, "write allow_http: true beside it"),
    ],
)
def test_a_mistake_names_the_setting(
    tmp_path: Path, relay: Mapping[str, Any], sections: Mapping[str, Any], phrase: str
) -> None:
    """Before any token comes."""
    with pytest.raises(ConfigurationError) as refused:
        loaded_from(tmp_path, relay, **sections)
    assert phrase in str(refused.value)


@pytest.mark.parametrize("public_uri", [f"{ISS}/jwks"])
@pytest.mark.parametrize("jwks_uri", [f"{ISS}/jwks", "https://a/notify/relays/op/jwks", "https://a/relays/o%70/jwks"])
def test_check_refuses_a_jwks_uri_that_equals_the_issuers_or_ends_with_relays_name_jwks(
    tmp_path: Path, jwks_uri: str, public_uri: str
) -> None:
    """It leads to the joined set."""
    with pytest.raises(ConfigurationError) as refused:
        loaded_from(tmp_path, {"jwks_uri": jwks_uri}, issuers={ISS: {**ISSUER, "jwks_uri": public_uri}})
    assert "which no proxy leads to notifier" in str(refused.value)


@pytest.mark.parametrize(
    ("sections", "phrase"),
    [
        (
            {
                "issuers": TWO,
                "relays": {"a": {"issuer": ISS, "jwks_uri": KEYS}, "b": {"issuer": OTHER, "jwks_uri": KEYS}},
            },
            "the server of each issuer could sign tokens of the other",
        ),
        ({"relays": {"a": {"jwks_uri": KEYS}, "b": {"issuer": ISS}}}, "is for the same issuer as relays.a"),
        ({"issuers": {ISS: {**ISSUER, "jwks_uri": f"{ISS}/jwks"}}}, "is required beside issuers"),
    ],
)
def test_check_refuses_two_issuers_with_one_jwks_uri_two_relays_of_one_issuer_and_no_jwks_uri_beside_the_issuers(
    tmp_path: Path, sections: Mapping[str, Any], phrase: str
) -> None:
    """They are errors."""
    with pytest.raises(ConfigurationError) as refused:
        loaded_from(tmp_path, {}, **sections)
    assert phrase in str(refused.value)


async def test_discovery_by_http_needs_the_relays_allow_http(tmp_path: Path) -> None:
    """`egress.allow_http` permits nothing here."""
    egress = {"allow": ["127.0.0.0/8"], "allow_http": True}
    with pytest.raises(ConfigurationError) as refused:
        loaded_from(tmp_path, {}, issuers={"http://id.internal": ISSUER}, egress=egress)
    assert "allow_http: true beside it" in str(refused.value)

    async def metadata(request: web.BaseRequest) -> web.Response:
        base = str(request.url.origin())
        content = (
            {"keys": [public(key("P-256"))]} if request.path == "/k" else {"issuer": base, "jwks_uri": f"{base}/k"}
        )
        return web.json_response(content)

    async with LoopbackServer(metadata) as server:
        reader = DocumentReader()
        for allowed, read in ((False, "is http; to allow it, set allow_http of the relay"), (True, "'kid': 'k1'")):
            loaded = loaded_from(tmp_path, {"allow_http": True}, issuers={server.base: ISSUER}, egress=egress)
            [relay] = relays_of(loaded.settings).values()
            relay = relay.model_copy(update={"allow_http": allowed})
            assert read in str(await read_relay_keys(relay, server.base, loaded.settings, reader))
        await reader.close()


@pytest.mark.parametrize("uri", [OWN, OWN.replace("/op/", "/%6Fp/"), OWN.replace("/op/", "/dex/")])
def test_check_names_a_client_whose_address_is_a_relay_by_the_decoded_path_of_all_relays(
    tmp_path: Path, uri: str
) -> None:
    """A client at the relay's own address would get notifier's token back to notifier."""
    shop, mail = ({"client_id": name, "backchannel_logout_uri": uri} for name, uri in (("shop", uri), ("mail", ISS)))
    rows = [{**row, "issuer": ISS} for row in (shop, mail)]
    relays = {"op": {"issuer": ISS}, "dex": {"issuer": OTHER}}
    path = written(tmp_path, {}, *rows, issuers=TWO, relays=relays)
    done = notifier("check", "-c", str(path), "--offline", cwd=tmp_path)
    assert "relay op: https://id.example.com posts its clients' tokens to /relays/op/backchannel-logout" in done.stdout
    assert "client 'shop': its backchannel_logout_uri is the address of relays." in done.stdout
    assert "client 'mail'" not in done.stdout
    shown = json.loads(notifier("check", "-c", str(path), "--offline", "--json", cwd=tmp_path).stdout)
    assert shown["relays"]["op"]["jwks_path"] == "/relays/op/jwks"


def test_a_relay_needs_the_listener(tmp_path: Path) -> None:
    """Without `web` it receives nothing."""
    loaded = loaded_from(tmp_path, {}, web=None)
    assert "a section `web`" in next(str(warning) for warning in loaded.warnings if "relays.op" in str(warning))


async def test_the_doctor_joins_the_keys(tmp_path: Path) -> None:
    """And names what keeps notifier's key out, private keys, loops, and sets that cannot be used."""
    own = public(key("P-256", "op"), "op-1")
    document: dict[str, Any] = {"keys": [own]}

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        """Publish the document, and answer 508 as notifier does for its own joined set."""
        if request.path == "/jwks":
            return web.Response(status=508 if request.headers.get("CDN-Loop") == "notifier" else 200)
        return web.json_response(document)

    async with LoopbackServer(handle) as server:
        shop = {"client_id": "shop", "backchannel_logout_uri": OWN}
        loaded = loaded_from(tmp_path, {"jwks_uri": f"{server.base}/keys"}, shop)

        async def examine(loaded: LoadedConfiguration) -> list[tuple[Severity, str]]:
            findings = await examine_relay("op", relays_of(loaded.settings)["op"], ISS, loaded)
            return [(finding.level, f"{finding.subject}: {finding.text}") for finding in findings]

        loop, well = await examine(loaded)
        assert (loop[0], well) == (
            Severity.FAILED,
            (Severity.OK, "relays.op: 1 key of the server can be read, and 1 key of notifier added"),
        )
        document["keys"] = [{**own, "kid": "n1", "d": "s3cret"}]
        texts = [text for level, text in await examine(loaded) if level is Severity.FAILED]
        assert any("holds private keys" in text for text in texts)
        assert any("tokens by key n1: another key is published under this kid" in text for text in texts)
        document["keys"] = []
        assert any("has no public key" in text for _, text in await examine(loaded))
        document |= RELAY_MEMBER
        assert any("leads to notifier itself" in text for _, text in await examine(loaded))
        looped = loaded_from(tmp_path, {"jwks_uri": f"{server.base}/jwks"})
        assert any("cannot be used: answered 508" in text for _, text in await examine(looped))


async def test_the_doctor_reads_the_set_that_clients_get(tmp_path: Path) -> None:
    """It is the joined set, has notifier's key anyway, or lacks it."""
    document: dict[str, Any] = {"keys": [public(key("P-256", "op"), "op-1")]}

    async def handle(_request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response(document)

    async with LoopbackServer(handle) as server:
        issuers = {ISS: {**ISSUER, "jwks_uri": f"{server.base}/public"}}
        egress = {"allow": ["127.0.0.0/8"], "allow_http": True}
        loaded = loaded_from(tmp_path, {"jwks_uri": f"{server.base}/keys"}, issuers=issuers, egress=egress)
        reader = DocumentReader()

        async def examine() -> tuple[Severity, str]:
            [finding] = await examine_public_set("op", ISS, loaded, reader)
            return finding.level, finding.text + finding.advice

        level, text = await examine()
        assert (level, "pass that path on to /relays/op/jwks" in text) == (Severity.FAILED, True)
        document["keys"].append(loaded.keys.jwks(ISS)["keys"][0])
        assert (await examine())[0] is Severity.OK
        document |= RELAY_MEMBER
        assert "clients get the joined set" in (await examine())[1]
        await reader.close()
