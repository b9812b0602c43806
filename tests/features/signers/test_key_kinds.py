"""The settings of keys in Vault and in key services."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import ValidationError

from notifier.features.signers.key_kinds import key_kinds
from notifier.features.signers.signer_settings import AwsKmsSettings, VaultKeySettings
from notifier.model.client import Algorithm
from notifier.settings.key_settings import KEY_KINDS, SigningSettings
from notifier.tokens.signers import Signers
from tests.cli.in_process import notifier
from tests.settings.whole_settings import KEY_SETTINGS
from tests.support.hanging_files import being_read, hanging

AZURE = {"vault_url": "https://x.vault.azure.net", "key": "logout", "version": "0" * 32}
GOOGLE = "projects/p/locations/global/keyRings/r/cryptoKeys/k/cryptoKeyVersions"
VAULT = {"address": "https://vault.example.com", "key": "logout", "version": 1}
ROLE = {"kubernetes": {"role": "notifier"}}
KEYS: Mapping[str, Mapping[str, object]] = {
    "vault": {**VAULT, **ROLE},
    "aws_kms": {"key_id": "alias/logout", "region": "eu-central-1"},
    "azure_key_vault": AZURE,
    "google_kms": {"name": f"{GOOGLE}/1"},
}


@pytest.mark.parametrize(
    "kind", [pytest.param(each, marks=() if each == "vault" else pytest.mark.full) for each in KEYS]
)
async def test_each_kind_makes_its_key(kind: str) -> None:
    """Nothing is asked for until somebody wants the public half."""
    settings = KEY_SETTINGS.model_validate({kind: KEYS[kind]})
    made = key_kinds()[kind]
    place, name = made.make(getattr(settings, kind), 1)
    assert settings.kind == kind
    assert (bool(name), made.missing()) == (True, None)
    await place.close()


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ({}, "needs one of file, "),
        ({"aws_kms": KEYS["aws_kms"], "google_kms": KEYS["google_kms"]}, "it has aws_kms and google_kms"),
        ({"vault": {**VAULT, **ROLE, "version": 0}}, "greater than or equal to 1"),
        ({"vault": {"address": "https://v", "key": "k", **ROLE}}, "Field required"),
        ({"vault": VAULT}, "needs one of token_file, approle, kubernetes"),
        ({"vault": {**VAULT, **ROLE, "address": "http://vault.example.com"}}, "must begin with https:// unless"),
        ({"vault": {**VAULT, **ROLE, "address": "https://v.example.com/v1"}}, "must end before /v1"),
        ({"vault": {**VAULT, **ROLE, "address": "https://a:b@v.example.com"}}, "must hold no user and password"),
        ({"vault": {**VAULT, **ROLE, "key": "../sys/seal"}}, "match pattern"),
        ({"aws_kms": {"key_id": "alias/logout"}}, "needs region, unless key_id is an ARN"),
        ({"aws_kms": {"key_id": "logout", "region": "eu-central-1"}}, "must be the ARN or the id of a key"),
        ({"azure_key_vault": {**AZURE, "version": "newest"}}, "match pattern"),
        ({"azure_key_vault": {**AZURE, "vault_url": "http://x.vault.azure.net"}}, "must be the address of the vault"),
        ({"google_kms": {"name": GOOGLE.rpartition("/")[0]}}, "must be the name of one version"),
    ],
)
def test_unusable_settings_are_refused(key: Mapping[str, object], text: str) -> None:
    """Above all a key without its version: the newest would sign before anybody knows it."""
    with pytest.raises(ValidationError, match=text):
        KEY_SETTINGS.model_validate(key)


def test_equivalent_spellings_are_normalized() -> None:
    """An ARN has its region; Vault's agent on this machine speaks http; an address may end in a slash."""
    arn = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    aws = KEY_SETTINGS.model_validate({"aws_kms": {"key_id": arn}}).of_kind(AwsKmsSettings)
    assert aws is not None
    assert aws.in_region == "eu-west-1"
    vault = KEY_SETTINGS.model_validate({"vault": {**VAULT, **ROLE, "address": "http://127.0.0.1:8100/"}}).of_kind(
        VaultKeySettings
    )
    assert vault is not None
    assert vault.address == "http://127.0.0.1:8100"
    assert vault.kubernetes is not None
    assert vault.kubernetes.token_file == Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
    assert set(KEY_KINDS) >= {"file", *KEYS}


def test_another_not_before_reads_the_key_again() -> None:
    """So a key that was replaced under its old name may sign without a restart. An unchanged key is reused."""
    places, bounds = Signers(key_kinds()), SigningSettings()
    pkcs11 = {"module": __file__, "token": "idp", "label": "logout", "pin_file": __file__}
    old, new = (
        KEY_SETTINGS.model_validate({"pkcs11": pkcs11, "not_before": start})
        for start in ("2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z")
    )
    assert places.key(old, bounds) is places.key(old, bounds)
    assert places.key(new, bounds) is not places.key(old, bounds)


def test_check_warns_of_issuers_with_one_key(tmp_path: Path) -> None:
    """Also without asking for its public half, by the settings that name it."""
    (tmp_path / "token").write_text("hvs.x")
    key = {**VAULT, "token_file": "token"}

    def checked(other: Mapping[str, object]) -> str:
        issuers = {"https://a.example": {"keys": [{"vault": key}]}, "https://b.example": {"keys": [{"vault": other}]}}
        (tmp_path / "n.json").write_text(json.dumps({"issuers": issuers}))
        done = notifier("check", "-c", "n.json", "--offline", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert 'issuers["https://b.example"].keys: the key of keys[0].vault is that of https://a.example' in checked(key)
    assert "too: whoever" not in checked({**key, "version": 2})


async def test_a_token_file_that_hangs_delays_only_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS's library reads it in the event loop that calls it, as Microsoft's does. So that is not the worker's loop."""
    file = tmp_path / "token"
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(file))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/notifier")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    settings = KEY_SETTINGS.model_validate({"aws_kms": KEYS["aws_kms"]})
    key, _ = key_kinds()["aws_kms"].make(settings.aws_kms, 1)
    with hanging(file):
        request = asyncio.ensure_future(key.sign(Algorithm.RS256, b"m"))
        async with being_read(file):
            request.cancel()
            await key.close()
