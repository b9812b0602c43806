"""The feature `signers`: signing keys in HSMs, Vault and the key services of clouds, which never leave them."""

from notifier.feature import Feature, late

SIGNERS = Feature(
    name="signers",
    sections={
        "issuers.keys.pkcs11": "notifier.features.signers.signer_settings:Pkcs11Settings",
        "issuers.keys.vault": "notifier.features.signers.signer_settings:VaultKeySettings",
        "issuers.keys.aws_kms": "notifier.features.signers.signer_settings:AwsKmsSettings",
        "issuers.keys.azure_key_vault": "notifier.features.signers.signer_settings:AzureKeySettings",
        "issuers.keys.google_kms": "notifier.features.signers.signer_settings:GoogleKmsSettings",
    },
    read=late("notifier.features.signers.key_kinds:read_signers"),
    key_kinds=late("notifier.features.signers.key_kinds:key_kinds"),
    checks=late("notifier.features.signers.doctor_signers:signer_checks"),
)
