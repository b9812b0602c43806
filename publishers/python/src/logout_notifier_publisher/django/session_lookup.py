"""Whether a session lives. Its key is a secret: whoever has it is the user. So the outbox has it encrypted.

The encryption key comes from SECRET_KEY. What an older key encrypted is read by SECRET_KEY_FALLBACKS; what none can
read counts as gone, since its end had begun.
"""

import base64
from importlib import import_module

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.db import close_old_connections
from django.utils.crypto import salted_hmac

from logout_notifier_publisher.django.django_settings import SIGNED_COOKIES

_SALT = "notifier.publisher.django"  # what an outbox holds was encrypted by it


def sealed(session_key: str | None) -> str | None:
    """What the outbox keeps of a session; None if the session cannot be looked up."""
    if not session_key or settings.SESSION_ENGINE == SIGNED_COOKIES:
        return None
    return _fernet().encrypt(session_key.encode()).decode()


def ending_id(session_key: str | None) -> str | None:
    """One id for a double click. A key is of one session, and its event is published once the session is gone."""
    if not session_key or settings.SESSION_ENGINE == SIGNED_COOKIES:
        return None
    return str(salted_hmac(f"{_SALT}.id", session_key, algorithm="sha256").hexdigest())[:40]


def lives(session: object) -> bool:
    """What the store says. Raises what the store does. Called on a thread of the publisher's."""
    try:
        session_key = _fernet().decrypt(str(session)).decode()
    except InvalidToken:
        return False
    close_old_connections()
    try:
        return bool(import_module(settings.SESSION_ENGINE).SessionStore().exists(session_key))
    finally:
        close_old_connections()


def _fernet() -> MultiFernet:
    keys = [settings.SECRET_KEY, *getattr(settings, "SECRET_KEY_FALLBACKS", [])]
    digests = [salted_hmac(f"{_SALT}.session", "", secret=key, algorithm="sha256").digest() for key in keys]
    return MultiFernet([Fernet(base64.urlsafe_b64encode(digest)) for digest in digests])
