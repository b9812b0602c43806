"""The context of a front-channel page, sealed into the page's URL."""

import json
import zlib
from string import ascii_letters, digits

import pytest
from cryptography.fernet import Fernet, MultiFernet

from notifier.features.browsers.front_channel_context import LIFETIME, LONGEST, TooManyClients, open_sealed, seal
from notifier.model.client import FrontChannelClient
from notifier.model.front_channel import FrontChannelContext
from notifier.model.frozen import replace

ISS = "https://login.example.com"
OLD, NEW = Fernet(Fernet.generate_key()), Fernet(Fernet.generate_key())
KEYS = MultiFernet([NEW, OLD])
NOW = 1_800_000_000.5
CONTEXT = FrontChannelContext(iss=ISS, sid="5F2A", clients=(("billing", None), ("shop", "own")))


def test_a_context_comes_back_as_it_was_sealed() -> None:
    """By each of the keys, for ten minutes, with the same id at each opening."""
    text = seal(CONTEXT, KEYS, NOW)
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    opened = open_sealed(text, MultiFernet([OLD, NEW]), NOW + LIFETIME)
    assert opened is not None
    assert opened.context == CONTEXT
    assert opened.until == int(NOW) + LIFETIME
    again = open_sealed(text, KEYS, NOW)
    assert again is not None
    assert again.id == opened.id


def test_addresses_come_back_as_they_were_sealed() -> None:
    """And a client that is named again counts as it was named first."""
    front = FrontChannelClient(
        frontchannel_logout_uri="https://new.example.net/out", frontchannel_logout_session_required=True
    )
    context = replace(
        CONTEXT, clients=(("new", None), *CONTEXT.clients, ("own", "sid")), brought={"new": front, "own": front}
    )
    opened = open_sealed(seal(context, KEYS, NOW), KEYS, NOW)
    assert opened is not None
    assert opened.context == context
    again = [ISS, None, "new", ["new", "x", "https://evil.example.net/", False], ["new", "y"]]
    opened = open_sealed(_fernet(again), KEYS, NOW)
    assert opened is not None
    assert (opened.context.clients, opened.context.brought) == ((("new", None),), {})


def test_a_context_has_one_id_however_it_is_spelled() -> None:
    """Else each spelling would be another context, whose report counts, and some lead a page to report elsewhere."""
    text = seal(CONTEXT, KEYS, NOW)
    opened = open_sealed(text, KEYS, NOW)
    assert opened is not None
    padded = open_sealed(text + "=" * (-len(text) % 4), KEYS, NOW)
    assert padded == opened
    for strange in (".", "\\..\\", "!", "~", "?"):
        assert open_sealed(text[:50] + strange * 4 + text[50:], KEYS, NOW) is None
    spelled = text.replace("_", "/").replace("-", "+")
    assert spelled == text or open_sealed(spelled, KEYS, NOW) is None
    found = {
        each.id
        for last in ascii_letters + digits + "-_"
        if (each := open_sealed(text[:-1] + last, KEYS, NOW)) is not None
    }
    assert found == {opened.id}


def _fernet(document: object) -> str:
    plain = json.dumps(document).encode()
    return NEW.encrypt_at_time(zlib.compress(plain), int(NOW)).decode().rstrip("=")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "é",
        "A" * 7501,
        seal(CONTEXT, MultiFernet([Fernet(Fernet.generate_key())]), NOW),
        seal(CONTEXT, KEYS, NOW - LIFETIME - 1),
        seal(CONTEXT, KEYS, NOW)[:-3] + "AAA",
        _fernet({"iss": ISS}),
        _fernet([ISS]),
        _fernet([ISS, 5, "billing"]),
        _fernet([ISS, None, {"client": "billing"}]),
        _fernet([ISS, None, ["billing", None, "https://billing.example.net/"]]),
        _fernet([ISS, None, ["billing", None, "https://billing.example.net/", 1]]),
        _fernet([ISS, None, ["billing", 5, "https://billing.example.net/", True]]),
        _fernet([ISS, None, ["billing", None, None, True]]),
        _fernet([ISS, None, ["billing", None, "https://billing.example.net/", True, "more"]]),
        _fernet([ISS, None, ["billing", None]]),
        _fernet([ISS, None, "x" * 300_000]),
        _fernet([ISS, "\ud800", "billing"]),
        NEW.encrypt_at_time(b"no zlib", int(NOW)).decode(),
    ],
    ids=range(19),
)
def test_what_is_no_context_of_ours_is_not_opened(text: str) -> None:
    """Forged, expired, changed, far too long, or not of this form."""
    assert open_sealed(text, KEYS, NOW) is None


def test_too_many_clients_are_refused_with_the_number_that_fits() -> None:
    """Random client ids do not compress; exactly as many as the error says can be sealed."""
    clients = tuple((Fernet.generate_key().decode()[:36], None) for _ in range(400))
    with pytest.raises(TooManyClients) as refused:
        seal(FrontChannelContext(iss=ISS, sid="5F2A", clients=clients), KEYS, NOW)
    fit = refused.value.fit
    assert 150 < fit < 400
    assert len(seal(FrontChannelContext(iss=ISS, sid="5F2A", clients=clients[:fit]), KEYS, NOW)) <= LONGEST
