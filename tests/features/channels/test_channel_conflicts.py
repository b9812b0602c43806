"""Channels whose settings contradict an issuer's or another client's, and what `check` reports of them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from notifier.features.channels.channel_checks import find_shared_audiences
from tests.cli.in_process import notifier
from tests.cli.registry_files import ISS, write
from tests.cli.registry_files import made as made_folder
from tests.configuration.clients.registry_sample import ONE, TWO, mistakes, registry
from tests.features.channels.test_channel_settings import URI, channel, of_kind


@pytest.mark.parametrize("issuers", [[ONE, TWO], [TWO, ONE], "*"])
def test_conflicts_at_any_issuer(tmp_path: Path, issuers: Any) -> None:
    """The audience is one of its issuers, or the defaults of one of them set the header of the proof."""

    def found(client: dict[str, Any], **registry: Any) -> list[str]:
        made = mistakes(tmp_path, json.dumps([client | {"issuer": issuers}]), ONE, TWO, registry=registry)
        return [path.removeprefix("clients.yaml[0].notifier.") for path in made]

    for iss in (ONE, TWO):
        client = of_kind("security_event", audience=["https://rp.example.com", iss])
        assert found(client, file="clients.yaml") == ["channel.security_event.audience"]
        defaults = {iss: {"headers": {"Authorization": "Bearer x"}, "origins": ["https://rp.example.com"]}}
        assert found(of_kind("global_token_revocation"), file="clients.yaml", defaults=defaults) == ["headers"]


def test_shared_audience(tmp_path: Path) -> None:
    """A token for one client is valid at the other's receiver. One origin is one receiver, and so is a follower's."""
    other = "https://other.example.com/channel"
    receivers: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
        ({"audience": "a"}, {"audience": ["b", "a"], "uri": other}, True),
        ({}, {"audience": URI, "uri": other}, True),
        ({"audience": "a"}, {"audience": "b", "uri": other}, False),
        ({"audience": "a"}, {"audience": "a", "uri": f"{URI}/mail"}, False),
        ({}, {}, False),
    ]
    for shop, mail, shared in receivers:
        for options in ({}, {"follows": "shop"}):
            rows = [
                of_kind("security_event", **shop),
                of_kind("security_event", options, **mail) | {"client_id": "mail"},
            ]
            found = find_shared_audiences(registry(tmp_path, json.dumps(rows)))
            paths = ["client 'mail': notifier.channel.security_event.audience"] * (shared and not options)
            assert [warning.path for warning in found] == paths, (shop, mail, options)


def test_check_counts_clients_of_whole_users(tmp_path: Path) -> None:
    """Events of one session do not reach them, so the operator sees how many they are."""
    folder = made_folder(tmp_path)
    clients = {
        "command": channel("command"),
        "always": channel("command", sessions=True),
        "event": channel("security_event"),
        "user": channel("security_event", session=False),
    }
    rows = [{"client_id": name, "issuer": ISS, "notifier": {"channel": each}} for name, each in clients.items()]
    write(folder, {"file": "a.yaml"}, a=rows)
    summary = json.loads(notifier("check", "-c", "n.yaml", "--json", cwd=folder).stdout)
    assert summary["issuers"][ISS]["without_sid"] == 2
    assert "2 notified only of events without sid" in notifier("check", "-c", "n.yaml", cwd=folder).stdout


PUBLISHERS = {"issuers": {ISS: {"keys": [{"file": "k.pem"}], "publishers": ["idp"]}}}
NO_PUBLISHERS = {"issuers": {ISS: {"keys": [{"file": "k.pem"}]}}}


@pytest.mark.parametrize(
    ("sections", "path"),
    [
        (NO_PUBLISHERS, f'issuers["{ISS}"].publishers'),
        (PUBLISHERS, None),
        (NO_PUBLISHERS | {"registry": {"file": "a.yaml", "inline": "allow"}}, None),
        (PUBLISHERS | {"registry": {"file": "a.yaml", "inline": "deny"}}, "registry.inline"),
        (NO_PUBLISHERS | {"api": {"tokens_file": "tokens.yaml"}}, None),
        (NO_PUBLISHERS | {"queue": {"url": "sqlite:/tmp/q.db"}}, None),
    ],
)
def test_email_of_no_publisher_counts(tmp_path: Path, sections: dict[str, Any], path: str | None) -> None:
    """Each delivery of a channel by e-mail address would become a dead letter, so `check` warns of it."""
    folder = made_folder(tmp_path)
    token = {"name": "idp", "token": "x" * 40, "scopes": ["publish"], "issuers": [ISS]}
    (folder / "tokens.yaml").write_text(yaml.safe_dump([token]))
    for settings, found in (({"subject": "email"}, path), ({}, None)):
        client = {"client_id": "vpn", "notifier": {"channel": channel("security_event", **settings)}}
        write(folder, {"file": "a.yaml"}, a=[client])
        document = yaml.safe_load((folder / "n.yaml").read_text()) | sections
        (folder / "n.yaml").write_text(yaml.safe_dump(document))
        done = notifier("check", "-c", "n.yaml", "--json", cwd=folder)
        assert done.returncode == 0, done.stderr + done.stdout
        warnings = json.loads(done.stdout)["warnings"]
        assert [warning["path"] for warning in warnings if "no_email" in warning["text"]] == [found] * (
            found is not None
        )
