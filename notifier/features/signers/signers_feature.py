"""The feature `signers`: signing keys in HSMs, Vault and the key services of clouds, which never leave them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from notifier.feature import Feature

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from notifier.configuration.configured_feature import FeaturePart
    from notifier.configuration.loading import LoadedConfiguration
    from notifier.model.registry import Registry
    from notifier.network.http.issuer_documents import DocumentReader
    from notifier.operators.doctor.doctor import Check
    from notifier.settings.service_settings import Settings
    from notifier.tokens.signers import KeyKind


def _kinds() -> Mapping[str, KeyKind]:
    from notifier.features.signers.key_kinds import key_kinds

    return key_kinds()


def _read(settings: Settings, _registry: Registry, _invalid: frozenset[str]) -> FeaturePart:
    from notifier.configuration.configured_feature import FeaturePart
    from notifier.features.signers.key_kinds import secrets_of_keys

    return FeaturePart(secrets=dict(secrets_of_keys(settings)))


def _checks(loaded: LoadedConfiguration, _reader: DocumentReader) -> Iterable[Check]:
    from notifier.features.signers.doctor_signers import signer_checks

    return signer_checks(loaded)


SIGNERS = Feature(
    name="signers",
    sections={
        "issuers.keys.pkcs11": "notifier.features.signers.signer_settings:Pkcs11Settings",
        "issuers.keys.vault": "notifier.features.signers.signer_settings:VaultKeySettings",
        "issuers.keys.aws_kms": "notifier.features.signers.signer_settings:AwsKmsSettings",
        "issuers.keys.azure_key_vault": "notifier.features.signers.signer_settings:AzureKeySettings",
        "issuers.keys.google_kms": "notifier.features.signers.signer_settings:GoogleKmsSettings",
    },
    read=_read,
    key_kinds=_kinds,
    checks=_checks,
)
