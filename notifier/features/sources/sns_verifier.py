"""Verifies messages of one topic of Amazon SNS, and confirms the subscription to it."""

from dataclasses import dataclass

import structlog
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA1, SHA256

from notifier.features.sources.sns_message import SnsMessage, SnsTopic, UnacceptedSns, read_sns
from notifier.features.sources.sns_server import CertificateAway, SnsServer


@dataclass(frozen=True, slots=True)
class SnsVerifier:
    """Verifies messages of `topic` by the certificates of `server`."""

    topic: SnsTopic
    server: SnsServer

    async def verified(self, body: bytes) -> SnsMessage | UnacceptedSns | CertificateAway:
        """Verify a message. Never raises."""
        message = read_sns(body, self.topic)
        if isinstance(message, UnacceptedSns):
            return message
        key = await self.server.key(message.certificate)
        if isinstance(key, CertificateAway):
            return key
        algorithm = SHA256() if message.algorithm == "sha256" else SHA1()  # noqa: S303  which SNS uses by default
        try:
            key.verify(message.signature, message.text, PKCS1v15(), algorithm)
        except InvalidSignature:
            return UnacceptedSns(text="the signature is wrong")
        return message

    async def heed_subscription(self, message: SnsMessage, source: str) -> bool:
        """Heed what a verified message tells of the subscription of a source. False if SNS could not be asked."""
        log = structlog.get_logger().bind(source=source, topic_arn=self.topic.arn)
        if message.kind != "SubscriptionConfirmation" or message.subscribe is None:
            log.warning("sns_unsubscribed", hint="its events come no more; if that is wrong, subscribe again")
            return True
        fault = await self.server.confirm(message.subscribe)
        if fault is None:
            log.info("sns_subscribed")
        else:
            log.warning("sns_unconfirmed", reason=fault)
        return fault is None
