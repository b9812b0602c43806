"""Which messages of Amazon SNS are believed, and what strangers can have a worker ask."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from structlog.testing import capture_logs

from notifier.features.sources.sns_message import SnsMessage, SnsRefusal, SnsTopic, read_sns
from notifier.features.sources.sns_server import (
    MAX_AWAITED_CERTIFICATES,
    MAX_CACHED_CERTIFICATES,
    MAX_QUEUED_CERTIFICATES,
    RETRY_AFTER_SECONDS,
    CertificateUnavailable,
)
from notifier.model.client import EgressPolicy
from tests.features.sources.sns_stand_in import (
    ARN,
    CERTIFICATE,
    CONFIRMATION,
    HOST,
    NOTIFICATION,
    SUBSCRIBE,
    key,
    pem,
    signature_of,
    signed,
    standing_in,
)
from tests.support.certificates import odd_certificate

WITHOUT_SUBJECT = {name: value for name, value in NOTIFICATION.items() if name != "Subject"}


def made_up(count: int) -> list[bytes]:
    """Return messages, each with a separate certificate."""
    return [signed(SigningCertURL=f"https://{HOST}/SimpleNotificationService-{number}.pem") for number in range(count)]


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize(
    "message",
    [NOTIFICATION, WITHOUT_SUBJECT, CONFIRMATION, {**CONFIRMATION, "Type": "UnsubscribeConfirmation"}],
    ids=range(4),
)
async def test_a_message_signed_by_sns_is_accepted(tmp_path: Path, message: dict[str, str], version: str) -> None:
    """By SHA1 and SHA256. Only what is signed goes on."""
    async with standing_in(tmp_path) as sns:
        found = await sns.verifier.verify(signed(message, version))
    assert isinstance(found, SnsMessage)
    assert (found.kind, json.loads(found.signed)) == (message["Type"], message)


def forgeries() -> list[bytes]:
    """Return messages in which something is changed, left out or signed by another; and one of another topic."""
    return [
        *(signed(**{name: f"{value} "}) for name, value in NOTIFICATION.items()),
        *(signed(CONFIRMATION, **{name: f"{value}x"}) for name, value in CONFIRMATION.items()),
        *(signed(**{name: None}) for name in NOTIFICATION),
        signed(Type="SubscriptionConfirmation", Token="t", SubscribeURL=SUBSCRIBE),
        signed(CONFIRMATION, Type="Notification"),
        signed(Signature=signature_of(NOTIFICATION, by=key(3072))),
        signed(Signature="not base64"),
        signed(SignatureVersion="1"),
        signed(SignatureVersion=2),
        signed(TopicArn=5),
        signed({**NOTIFICATION, "TopicArn": f"{ARN}-of-others"}),
        b"",
        b"[]",
        b'{"Type": "Notification"',
        b'{"user": "alice"}',
    ]


async def test_a_forged_sns_message_is_refused(tmp_path: Path) -> None:
    """Also by a worker that knows the certificate."""
    async with standing_in(tmp_path) as sns:
        assert [body for body in forgeries() if not isinstance(await sns.verifier.verify(body), SnsRefusal)] == []


ELSEWHERE = [
    "http://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0.pem",
    "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0.pem",
    "https://sns.eu-west-1.amazonaws.com.cn/SimpleNotificationService-0.pem",
    "https://sns.eu-west-1.amazonaws.com.example.org/SimpleNotificationService-0.pem",
    "https://sns.eu-west-1.amazonaws.com:8443/SimpleNotificationService-0.pem",
    "https://sns.eu-west-1.amazonaws.com@evil.example/SimpleNotificationService-0.pem",
    "https://evil.example/sns.eu-west-1.amazonaws.com/SimpleNotificationService-0.pem",
    "https://sns.eu-west-1.amazonaws.com/a/SimpleNotificationService-0.pem",
    "https://sns.eu-west-1.amazonaws.com/../SimpleNotificationService-0.pem",
    "https://sns.eu-west-1.amazonaws.com/?Action=x&y=/SimpleNotificationService-0.pem",
    "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0.pem?x=1",
    "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0.pem\n",
    "https://sns.eu-west-1.amazonaws.com/evil.pem",
    "https://sns.s3-eu-west-1.amazonaws.com/SimpleNotificationService-0.pem",
    "https://sns.s3.amazonaws.com/SimpleNotificationService-0.pem",
    "https://127.0.0.1/SimpleNotificationService-0.pem",
    "file:///etc/passwd",
    "",
]


@pytest.mark.parametrize("address", ELSEWHERE)
async def test_certificates_are_read_from_the_regions_server_only(tmp_path: Path, address: str) -> None:
    """Neither for a certificate, nor to confirm, even by a good certificate. A bucket of S3 may be called `sns`."""
    async with standing_in(tmp_path) as sns:
        assert isinstance(await sns.verifier.verify(signed(SigningCertURL=address)), SnsRefusal)
        confirm = {**CONFIRMATION, "SubscribeURL": address}
        assert isinstance(await sns.verifier.verify(signed(confirm)), SnsRefusal)
        assert sns.asked == []


@pytest.mark.parametrize(
    ("arn", "server"),
    [
        (ARN, f"https://{HOST}"),
        ("arn:aws-cn:sns:cn-northwest-1:123456789012:t", "https://sns.cn-northwest-1.amazonaws.com.cn"),
        ("arn:aws-us-gov:sns:us-gov-west-1:123456789012:t", "https://sns.us-gov-west-1.amazonaws.com"),
    ],
)
def test_the_topic_determines_the_server(arn: str, server: str) -> None:
    """In each part of AWS."""
    assert SnsTopic(arn).server == server


@pytest.mark.parametrize("name", ["Subject", "MessageId", "Timestamp", "SigningCertURL"])
def test_a_signed_text_has_one_reading(name: str) -> None:
    """Who may publish to the topic could put the lines of other members into `Message`, and post the other reading."""
    evil = '{"user": "mallory"}'
    genuine = {**WITHOUT_SUBJECT, "Message": f"{evil}\nMessageId\nanother\nSubject\nrest"}
    rest = f"rest\nMessageId\n{NOTIFICATION['MessageId']}"
    other = {**WITHOUT_SUBJECT, "Message": evil, "MessageId": "another", "Subject": rest}
    assert signature_of(genuine) == signature_of(other)
    body = signed(other) if name == "Subject" else signed(**{name: f"{NOTIFICATION.get(name, CERTIFICATE)}\nx"})
    found = read_sns(body, SnsTopic(ARN))
    assert isinstance(found, SnsRefusal)
    assert f"{name} has a line break" in found.text


async def test_a_member_that_is_there_twice_has_one_reading(tmp_path: Path) -> None:
    """The verified member is used, whichever of the two that is."""
    twice = signed().removesuffix(b"}") + b', "Message": "{\\"user\\": \\"mallory\\"}"}'
    first = b'{"Message": "{\\"user\\": \\"mallory\\"}", ' + signed().removeprefix(b"{")
    async with standing_in(tmp_path) as sns:
        for body in (twice, first):
            found = await sns.verifier.verify(body)
            assert not (isinstance(found, SnsMessage) and b"mallory" in found.signed)


BROKEN: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "expired": (lambda: {"certificate": pem(days=-1)}, "not valid at this time"),
    "no certificate": (lambda: {"certificate": b"<html>"}, "not a PEM certificate"),
    "of an unknown version": (lambda: {"certificate": odd_certificate("version 4").encode()}, "not a PEM certificate"),
    "of another kind": (lambda: {"certificate": pem(ec.generate_private_key(ec.SECP256R1()))}, "no RSA key"),
    "weak": (lambda: {"certificate": pem(key(1024))}, "has 1024 bits"),
    "too large": (lambda: {"certificate": pem() + b" " * 40_000}, "larger than 32 KiB"),
    "not there": (lambda: {"status": 404}, "answered 404"),
    "elsewhere": (lambda: {"status": 302, "headers": {"Location": f"https://{HOST}/b.pem"}}, "a redirect"),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_an_unusable_certificate_is_logged(tmp_path: Path, case: str) -> None:
    """The message can be sent again: SNS does so after a 503, and never after a 401. The log has the reason, once.

    For some seconds the certificate is not asked for again.
    """
    given, phrase = BROKEN[case]
    now = [0.0]
    async with standing_in(tmp_path, monotonic=lambda: now[0]) as sns:
        for name, value in given().items():
            setattr(sns, name, value)
        with capture_logs() as lines:
            for seconds in (0.0, RETRY_AFTER_SECONDS - 0.1, RETRY_AFTER_SECONDS):
                now[0] = seconds
                assert isinstance(await sns.verifier.verify(signed()), CertificateUnavailable)
        assert len(sns.asked) == 2
    assert [line["event"] for line in lines] == ["sns_certificate_unread"]
    assert phrase in lines[0]["reason"]


@pytest.mark.parametrize(
    ("given", "phrase"),
    [({"tls": None}, "certificate"), ({"egress": EgressPolicy()}, "address 127.0.0.1 is loopback")],
    ids=["an authority that nobody trusts", "an address that is not allowed"],
)
async def test_the_server_must_be_the_one_of_that_name(tmp_path: Path, given: dict[str, Any], phrase: str) -> None:
    """By its own certificate; and at an address to which clients may be called."""
    async with standing_in(tmp_path, **given) as sns:
        with capture_logs() as lines:
            assert isinstance(await sns.verifier.verify(signed()), CertificateUnavailable)
        assert sns.asked == []
        assert await sns.verifier.server.confirm(SUBSCRIBE) is not None
        assert sns.asked == []
    assert phrase in lines[0]["reason"]


async def test_a_certificate_is_read_once(tmp_path: Path) -> None:
    """And again when it has expired. Those who come at once wait for one reading."""
    moment = [0.0]
    async with standing_in(tmp_path, monotonic=lambda: moment[0]) as sns:
        found = await asyncio.gather(*(sns.verifier.verify(signed()) for _ in range(20)))
        assert all(isinstance(each, SnsMessage) for each in found)
        assert len(sns.asked) == 1


async def test_strangers_cannot_have_certificates_read_without_end(tmp_path: Path) -> None:
    """Two in a second, and a bounded number of messages waits for them. Those that are kept stay usable meanwhile."""
    now, pauses = [0.0], []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    async with standing_in(tmp_path, monotonic=lambda: now[0], pause=pause) as sns:
        assert isinstance(await sns.verifier.verify(signed()), SnsMessage)
        sns.status = 404
        *away, good = await asyncio.gather(*map(sns.verifier.verify, made_up(100)), sns.verifier.verify(signed()))
        assert isinstance(good, SnsMessage)
        assert all(isinstance(each, CertificateUnavailable) for each in away)
        assert len(sns.asked) - 1 in (MAX_AWAITED_CERTIFICATES, MAX_AWAITED_CERTIFICATES + 1)
        assert set(pauses) == {0.5}


@pytest.mark.parametrize(("before", "later"), [(MAX_QUEUED_CERTIFICATES - 1, 0), (0, 40)])
async def test_no_stranger_keeps_a_certificate_from_being_read(tmp_path: Path, before: int, later: int) -> None:
    """A repeated name precedes all single names, and all later names, however often they are repeated."""
    turns = asyncio.Semaphore(0)
    async with standing_in(tmp_path, monotonic=lambda: 0.0, pause=lambda _: turns.acquire()) as sns:
        sns.only = True
        first, *others = made_up(1 + before + later)
        assert isinstance(await sns.verifier.verify(first), CertificateUnavailable)  # the next waits for its turn
        posts = [*others[:before], signed(), signed(), *others[before:] * 5]
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            for body in posts:
                group.create_task(sns.verifier.verify(body))
            for _ in posts:
                turns.release()
        assert CERTIFICATE.endswith(sns.asked[1])
        assert isinstance(await sns.verifier.verify(signed()), SnsMessage)


async def test_messages_that_wait_are_answered_when_the_worker_ends(tmp_path: Path) -> None:
    """With 503, so that SNS sends them again."""
    async with standing_in(tmp_path, monotonic=lambda: 0.0, pause=lambda _: asyncio.sleep(60)) as sns:
        assert isinstance(await sns.verifier.verify(signed()), SnsMessage)
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            waiting = group.create_task(sns.verifier.verify(made_up(1)[0]))
            await asyncio.sleep(0)
            await sns.verifier.server.close()
        assert isinstance(waiting.result(), CertificateUnavailable)


async def test_a_bounded_number_of_certificates_is_kept(tmp_path: Path) -> None:
    """The last that were read."""
    async with standing_in(tmp_path, monotonic=iter(range(10_000)).__next__) as sns:
        for number in [*range(MAX_CACHED_CERTIFICATES + 1), MAX_CACHED_CERTIFICATES, 0]:
            address = f"https://{HOST}/SimpleNotificationService-{number}.pem"
            assert isinstance(await sns.verifier.verify(signed(SigningCertURL=address)), SnsMessage)
        assert len(sns.asked) == MAX_CACHED_CERTIFICATES + 2
