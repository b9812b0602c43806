"""What `check` reports of a client's settings beside its channel: secrets in clear text, and members without effect."""

from pathlib import Path
from typing import Any

import pytest

from notifier.configuration.clients.layer import BuiltRegistry
from notifier.configuration.clients.registry_checks import find_preset_mismatches
from notifier.operators.doctor.doctor_clients import judge_registry
from tests.configuration.clients.registry_sample import HOOK, ONE, count_calls
from tests.configuration.clients.test_authority import built, of_file, of_list, row
from tests.features.channels.test_channel_settings import KINDS, SECRET, channel, of_kind


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("hunter2")
    monkeypatch.chdir(tmp_path)


def warnings(folder: Path, client: dict[str, Any]) -> dict[str, str]:
    """Return the warnings of the client, by setting."""
    made: BuiltRegistry = built(folder, of_file(client))
    assert not made.mistakes
    return {warning.path.partition(".notifier.")[2]: warning.text for warning in made.warnings}


def test_warnings(tmp_path: Path) -> None:
    """A secret in clear, a pairwise client that is known by e-mail address, and settings of logout tokens."""
    clear = of_kind("security_event", {"headers": {"authorization": "Bearer hunter2"}})
    found = warnings(tmp_path, clear)
    assert list(found) == ["headers.authorization"]
    assert "hunter2" not in str(found)
    assert not warnings(tmp_path, of_kind("security_event", {"headers": {"Authorization": SECRET}}))
    pairwise = {**of_kind("security_event", subject="email"), "subject_type": "pairwise"}
    assert list(warnings(tmp_path, pairwise)) == ["channel.security_event.subject"]
    assert list(warnings(tmp_path, of_kind("security_event", {"lifetime": "60s"}))) == ["lifetime"]


@pytest.mark.parametrize("kind", KINDS)
def test_members_without_effect(tmp_path: Path, kind: str) -> None:
    """Each concerns logout tokens only. A list's are not warned of, except encryption, which its requests lack."""
    unused: dict[str, Any] = {
        "backchannel_logout_uri": HOOK,
        "backchannel_logout_session_required": True,
        "id_token_encrypted_response_alg": "RSA-OAEP",
    }
    preset = {"preset": "keycloak_broker"}
    made = built(tmp_path, of_file(of_kind(kind, preset) | unused))
    paths = [warning.path.removeprefix("clients.yaml[0].") for warning in made.warnings]
    assert paths == [*unused, "notifier.preset"]
    client = made.registry.clients_of(ONE)["shop"]
    assert (client.preset, client.backchannel_logout_session_required, client.encryption) == (None, False, None)
    assert not list(find_preset_mismatches(made.registry))
    assert not list(judge_registry([client]))
    listed = of_list(row(**unused), issuer=ONE)
    [warning] = built(tmp_path, listed, of_file(of_kind(kind))).warnings
    assert warning.path.endswith(".id_token_encrypted_response_alg")
    assert "not encrypted" in warning.text
    plain = of_kind(kind) | {"id_token_encrypted_response_alg": None, "backchannel_logout_session_required": False}
    assert not built(tmp_path, listed, of_file(plain)).warnings
    leader = row("mail", **unused | {"jwks_uri": HOOK}, notifier=preset)
    assert not built(tmp_path, of_file(leader, of_kind(kind, {"follows": "mail"}))).warnings


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({"X-Api-Key": "hunter2"}, ["X-Api-Key"]),
        ({"Accept-Language": "en"}, ["Accept-Language"]),
        ({"X-Api-Key": SECRET, "Accept-Language": "en"}, []),
        ({"X-Api-Key": SECRET, "Authorization": "Bearer hunter2"}, ["Authorization"]),
    ],
)
def test_clear_text_is_no_proof(tmp_path: Path, headers: dict[str, Any], found: list[str]) -> None:
    """If no header beside `proof: headers` is a secret, anybody could send such a request."""
    client = of_kind("global_token_revocation", {"headers": headers}, proof="headers")
    assert list(warnings(tmp_path, client)) == [f"headers.{name}" for name in found]


@pytest.mark.parametrize("kind", KINDS)
def test_pairwise_client_of_a_list_is_a_warning(tmp_path: Path, kind: str) -> None:
    """Its channel, which a file sets, gets no `sub` of the event. So does that of a follower."""
    listed = of_list(row(subject_type="pairwise"), issuer=ONE)
    follower = {"client_id": "shop-all", "notifier": {"follows": "shop", "channel": channel(kind)}}
    for own, name in ((of_kind(kind), "shop"), (follower, "shop-all")):
        [warning] = built(tmp_path, listed, of_file(own)).warnings
        assert warning.path == "client 'shop' of registry source db"
        assert f"has subject_type pairwise, so the channel of {name!r} gets the `sub` of its own entry" in warning.text
        assert "set subject_type: public of 'shop' in a file" in warning.text
        for subject_type in ("public", "pairwise"):
            more = of_file({"client_id": "shop", "subject_type": subject_type})
            assert not built(tmp_path, listed, of_file(own), more).warnings
    costs = []
    for count in 200, 400:
        names = [f"c{nth}" for nth in range(count)]
        lists = of_list(*(row(name, subject_type="pairwise") for name in names), issuer=ONE)
        files = of_file(*({**of_kind(kind), "client_id": name} for name in names))
        assert len(built(tmp_path, lists, files).warnings) >= count
        costs.append(count_calls(built, tmp_path, lists, files))
    assert costs[1] < 2.2 * costs[0], "twice as many clients cost twice as much"
    if kind != "command":
        [warning] = built(tmp_path, listed, of_file(of_kind(kind, subject="email"))).warnings
        assert "by e-mail address" in warning.text
