"""A transmitter with what verifies the Security Event Tokens that it signs."""

from collections.abc import Mapping
from typing import Any

from notifier.features.sources.source_proofs import SetVerifier
from tests.tokens.transmitter import AUDIENCE, ISSUER, NOW, Transmitter


class SetTransmitter(Transmitter):
    """Publish keys, or be unavailable; `verifier` reads them."""

    def __init__(self, *published: Mapping[str, Any]) -> None:
        super().__init__(*published)
        self.verifier = SetVerifier(self.keys, issuer=ISSUER, audience=AUDIENCE, clock=lambda: NOW)
