"""`notifier.channel` in a file: what is refused, what is warned of, and what no list and no event may set."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from notifier.features.channels.channel_presets import EVENT_PRESETS, REVOCATION_PRESETS
from notifier.features.channels.channel_settings import GlobalTokenRevocationSettings, SecurityEventSettings
from notifier.messages.message_planner import make_deliveries
from notifier.model.client import Client
from notifier.model.delivery import ClientOverrides, Delivery
from notifier.model.session_ended import ClientEntry, SessionEnded
from notifier.settings.clients import TokenOptions
from tests.cli.in_process import notifier
from tests.cli.registry_files import ISS, origins, write
from tests.cli.registry_files import made as made_folder
from tests.configuration.clients.registry_sample import HOOK, ONE, mistakes, registry
from tests.configuration.clients.test_authority import EVIL, built, ignored_members, of_file, of_list, row
from tests.configuration.clients.test_client_options import VALUES

URI = "https://rp.example.com/channel"
SECRET = {"file": "secret"}
TOKEN = {"endpoint": "https://as.example.com/token", "client_id": "notifier", "client_secret": SECRET}
KINDS = ("security_event", "global_token_revocation", "command")


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("hunter2")
    monkeypatch.chdir(tmp_path)


def channel(kind: str, **settings: Any) -> dict[str, Any]:
    """Return a section `channel`."""
    return {kind: {"uri": URI, **({"tenant": "acme"} if kind == "command" else {}), **settings}}


def of_kind(kind: str, options: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    """Return a client with a channel and further members of `notifier`."""
    return {"client_id": "shop", "notifier": {"channel": channel(kind, **settings), **(options or {})}}


def errors(folder: Path, client: dict[str, Any], **sections: Any) -> dict[str, str]:
    """Return the errors of the client, by setting."""
    found = mistakes(folder, json.dumps([client]), **sections)
    return {path.removeprefix("clients.yaml[0].notifier."): text for path, text in found.items()}


def client_of(folder: Path, client: dict[str, Any], **sections: Any) -> Client:
    """Return the client."""
    return registry(folder, json.dumps([client]), **sections).clients_of(ONE)["shop"]


@pytest.mark.parametrize("kind", KINDS)
def test_channel_replaces_the_logout_uri(tmp_path: Path, kind: str) -> None:
    """The client has an address without `backchannel_logout_uri`, and another one does not replace it."""
    assert client_of(tmp_path, of_kind(kind)).logout_uri == URI
    both = client_of(tmp_path, {**of_kind(kind), "backchannel_logout_uri": HOOK})
    assert (both.logout_uri, both.channel_kind) == (URI, kind)


@pytest.mark.parametrize(
    ("section", "path", "text"),
    [
        ({}, "channel", "needs one of security_event, global_token_revocation, command"),
        ({**channel("command"), **channel("security_event")}, "channel", "it has security_event and command"),
        ({"carrier_pigeon": {}}, "channel.carrier_pigeon", "there is no such key"),
        ({"command": {"uri": URI}}, "channel.command.tenant", "is required"),
        ({"command": {"tenant": "acme"}}, "channel.command.uri", "is required"),
        (channel("command", uri="shop"), "channel.command.uri", "must be an absolute URI"),
        (channel("command", uri="http://rp.example.com/"), "channel.command.uri", "allow_http"),
        (channel("command", uri="https://10.0.0.1/"), "channel.command.uri", "10.0.0.1"),
        (channel("security_event", subject="mail"), "channel.security_event.subject", "must be iss_sub, email, opaque"),
        (channel("security_event", subject=5), "channel.security_event.subject", "must be iss_sub, email, opaque"),
        (channel("security_event", subject={"id": "{sub}"}), "channel.security_event.subject", "needs a format"),
        (channel("security_event", subject={"format": "x", "id": "{name}"}), "channel.security_event.subject", "{iss}"),
        (channel("security_event", subject={"format": "x", "id": "me"}), "channel.security_event.subject", "{sub} or"),
        (channel("security_event", subject={"format": "x", "id": 5}), "channel.security_event.subject", "must be"),
        (channel("security_event", audience=ONE), "channel.security_event.audience", "not the issuer"),
        (channel("security_event", audience=[]), "channel.security_event.audience", "at least one"),
        (channel("security_event", audience=""), "channel.security_event.audience[0]", "must not be empty"),
        (channel("security_event", audience=["a", ""]), "channel.security_event.audience[1]", "must not be empty"),
        (channel("security_event", sessions=True), "channel.security_event", "remove sessions"),
        (channel("security_event", preset="caepdev"), "channel.security_event", "did you mean caep_dev?"),
        (channel("global_token_revocation", preset="janssen"), "channel.global_token_revocation", "needs proof"),
        (
            channel("global_token_revocation", proof="none"),
            "channel.global_token_revocation.proof",
            "must be jwt, headers, or",
        ),
        (channel("global_token_revocation", proof={}), "channel.global_token_revocation.proof", "needs endpoint and"),
        (channel("global_token_revocation", proof="headers"), "channel.global_token_revocation.proof", "has none"),
        (
            channel("global_token_revocation", proof={**TOKEN, "client_secret": "hunter2"}),
            "channel.global_token_revocation.proof.client_secret",
            "must be {file: PATH}",
        ),
        (
            channel("global_token_revocation", proof={**TOKEN, "client_secret": {"file": "none"}}),
            "channel.global_token_revocation.proof.client_secret.file",
            "there is no file",
        ),
        (
            channel("global_token_revocation", proof={**TOKEN, "endpoint": "http://as.example.com/"}),
            "channel.global_token_revocation.proof.endpoint",
            "allow_http",
        ),
        (
            channel("global_token_revocation", proof={**TOKEN, "endpoint": "https://169.254.169.254/"}),
            "channel.global_token_revocation.proof.endpoint",
            "169.254.169.254",
        ),
    ],
)
def test_invalid_sections(tmp_path: Path, section: dict[str, Any], path: str, text: str) -> None:
    """One error each, at the member to change, and no secret in it."""
    [(found, told)] = errors(tmp_path, {"client_id": "shop", "notifier": {"channel": section}}).items()
    assert found == path
    assert text in told
    assert "hunter2" not in told


@pytest.mark.parametrize(("content", "text"), [("", "is empty"), (" \n", "is empty"), ("hunter2\nx", "one line")])
def test_secret_is_read_as_at_use(tmp_path: Path, content: str, text: str) -> None:
    """Otherwise it would fail at the first delivery."""
    (tmp_path / "secret").write_text(content)
    [(found, told)] = errors(tmp_path, of_kind("global_token_revocation", proof=TOKEN)).items()
    assert found == "channel.global_token_revocation.proof.client_secret.file"
    assert text in told
    assert "hunter2" not in told


@pytest.mark.parametrize("option", TokenOptions.model_fields)
def test_contents_of_a_command_are_fixed(tmp_path: Path, option: str) -> None:
    """They are refused, not ignored."""
    found = errors(tmp_path, of_kind("command", {option: VALUES[option]}))
    assert list(found) == [option]


def test_conflicts_are_reported_at_once(tmp_path: Path) -> None:
    """A call by the worker, and two proofs."""
    options = {"front_channel": "server", "headers": {"Authorization": "Bearer x"}}
    client = {**of_kind("global_token_revocation", options), "frontchannel_logout_uri": HOOK, "redirect_uris": [HOOK]}
    assert errors(tmp_path, client).keys() == {"front_channel", "headers"}


def test_defaults_have_no_channel(tmp_path: Path) -> None:
    """Its address would get every user."""
    found = mistakes(
        tmp_path, "[]", registry={"file": "clients.yaml", "defaults": {ONE: {"channel": channel("command")}}}
    )
    assert list(found) == [f'registry.defaults["{ONE}"].channel']


def test_unknown_default_suggests_no_channel(tmp_path: Path) -> None:
    """Only what defaults may have is suggested. A client may have the others."""
    for name, near in (("zzz", ""), ("chanel", "channel"), ("folows", "follows")):
        registry = {"file": "clients.yaml", "defaults": {ONE: {name: "5s"}}}
        found = mistakes(tmp_path, "[]", registry=registry)[f'registry.defaults["{ONE}"].{name}']
        assert "there is no such key" in found
        assert not {"follows", "channel"} & set(re.findall(r"\w+", found)), found
        own = errors(tmp_path, {"client_id": "shop", "notifier": {name: "5s"}})[name]
        assert near in own


def test_list_sets_no_channel(tmp_path: Path) -> None:
    """It is ignored and reported; the client keeps its logouts. Nor can a list move a client with a channel."""
    hostile = row(uri=HOOK, notifier={"channel": channel("security_event", uri=EVIL)})
    made = built(tmp_path, of_list(hostile, issuer=ONE))
    assert made.registry.clients_of(ONE)["shop"].logout_uri == HOOK
    assert "notifier.channel: only a file may set it" in ignored_members(made)[0]
    made = built(
        tmp_path,
        of_file(of_kind("command", {"proxy": "http://proxy.example.com:3128"})),
        of_list(row(uri=EVIL), issuer=ONE),
    )
    client = made.registry.clients_of(ONE)["shop"]
    assert (client.logout_uri, client.route.withheld) == (URI, None)
    assert client.route.proxy is not None


def test_file_with_a_channel_only_registers_a_client(tmp_path: Path) -> None:
    """In a second source, too: it is more than settings for a client of another source."""
    made = built(tmp_path, of_list(row("mail"), issuer=ONE), of_file(of_kind("command")))
    assert made.registry.has_address(ONE, "shop")
    assert not made.warnings


def test_event_replaces_no_channel(tmp_path: Path) -> None:
    """Its address is for logout tokens."""
    section = {"file": "clients.yaml", "inline": "allow"}
    known = registry(tmp_path, json.dumps([of_kind("security_event")]), registry=section)
    overrides = ClientOverrides(backchannel_logout_uri=EVIL)
    assert known.resolve(ONE, "shop", overrides) is known.clients_of(ONE)["shop"]
    entry = ClientEntry(client_id="shop", backchannel_logout_uri=EVIL)
    event = SessionEnded(id="e", id_given=True, iss=ONE, sub="alice", sid="s", clients=(entry,))
    [step] = make_deliveries(event, known, 0.0)
    assert isinstance(step, Delivery)
    client = known.client_of(step)
    assert client is not None
    assert client.logout_uri == URI


def test_encryption_is_not_required(tmp_path: Path) -> None:
    """Requests of channels are signed only, so a client needs no key."""
    client = client_of(tmp_path, {**of_kind("command"), "id_token_encrypted_response_alg": "RSA-OAEP"})
    assert client.encryption is None


@pytest.mark.parametrize("name", [*EVENT_PRESETS, *REVOCATION_PRESETS])
def test_presets(name: str) -> None:
    """Each sets members that exist. Members beside it come first."""
    events = name in EVENT_PRESETS
    preset = (EVENT_PRESETS if events else REVOCATION_PRESETS)[name]
    section = SecurityEventSettings if events else GlobalTokenRevocationSettings
    assert preset.members.keys() <= section.model_fields.keys()
    proof = {"proof": TOKEN} if preset.needs_access_token else {}
    settings = section.model_validate({"uri": URI, "preset": name, "subject": "opaque", **proof})
    assert settings.subject == {"format": "opaque", "id": "{sub}"}
    if isinstance(settings, GlobalTokenRevocationSettings) and preset.needs_access_token:
        assert settings.proof.scope == preset.proof["scope"]


def test_follower_with_a_channel(tmp_path: Path) -> None:
    """It needs no other address, and takes no claims of its leader."""
    leader = {"client_id": "shop", "backchannel_logout_uri": HOOK, "notifier": {"claims": {"tenant": "x"}}}
    follower = {"client_id": "shop-all", "notifier": {"follows": "shop", "channel": channel("command")}}
    for rows in ([leader, follower], [follower, leader]):
        known = registry(tmp_path, json.dumps(rows))
        found = known.clients_of(ONE)["shop-all"]
        assert (found.logout_uri, found.issued_id, dict(found.token.claims)) == (URI, "shop", {})
    made = built(tmp_path, of_list(row(), issuer=ONE), of_file(follower))
    assert made.registry.has_address(ONE, "shop-all")
    assert not made.mistakes


def test_clients_show_has_the_channel(tmp_path: Path) -> None:
    """With its origin and without secrets; the other address is marked as not used."""
    folder = made_folder(tmp_path)
    (folder / "token-secret").write_text("hunter2")
    proof = {**TOKEN, "client_secret": {"file": "token-secret"}}
    section = channel("global_token_revocation", proof=proof, preset="okta_org")
    options = {"channel": section, "typ": "JWT"}
    shop = {"client_id": "shop", "issuer": ISS, "backchannel_logout_uri": HOOK, "notifier": options}
    sections: list[dict[str, Any]] = [{"sources": [{"name": "a", "file": "a.yaml"}]}, {"file": "a.yaml"}]
    for section in sections:
        write(folder, section, a=[shop])
        found = origins(folder)
        kind = "notifier.channel.global_token_revocation"
        value, origin = found[f"{kind}.proof"]
        assert "'scope': 'okta.universalLogout.manage'" in str(value)
        assert "hunter2" not in str(found)
        assert found[f"{kind}.uri"] == (URI, origin)
        assert "a.yaml" in origin
        assert found[f"{kind}.sessions"] == (False, "default of the channel")
        assert "'format': 'iss_sub'" in str(found[f"{kind}.subject"])
        assert found["backchannel_logout_uri"] == (HOOK, f"{origin}; not used, since the client has a channel")
        assert found["notifier.typ"] == ("JWT", f"{origin}; not used, since the client has a channel")
        assert not {"notifier.subject", "id_token_signed_response_alg", kind} & found.keys()
    mail = {"client_id": "shop", "issuer": ISS, "notifier": {"channel": channel("security_event", preset="caep_dev")}}
    write(folder, {"file": "a.yaml"}, a=[mail])
    found = origins(folder)
    assert found["notifier.channel.security_event.subject"][1] == "preset caep_dev"
    assert found["id_token_signed_response_alg"] == ("RS256", "default")
    assert "backchannel_logout_uri" not in found
    write(folder, {"file": "a.yaml"}, a=[shop])
    listed = notifier("clients", "list", "-c", "n.yaml", cwd=folder).stdout
    assert f"{URI} (global_token_revocation)" in " ".join(listed.split())
