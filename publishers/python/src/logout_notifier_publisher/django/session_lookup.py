"""Look up whether a session exists. The outbox contains only encrypted session keys, which are secrets.

The encryption key is derived from SECRET_KEY; SECRET_KEY_FALLBACKS decrypt older entries. An entry that cannot be
decrypted counts as ended, because its sign-out was started.
"""

import base64
from importlib import import_module

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.db import close_old_connections
from django.utils.crypto import salted_hmac

from logout_notifier_publisher.django.django_settings import SIGNED_COOKIES

_SALT = "notifier.publisher.django"  # do not change: existing outboxes are encrypted with it


def encrypt_session_key(session_key: str | None) -> str | None:
    """Return the encrypted session key for the outbox; None if the session cannot be looked up."""
    if not session_key or settings.SESSION_ENGINE == SIGNED_COOKIES:
        return None
    return _fernet().encrypt(session_key.encode()).decode()


def derive_event_id(session_key: str | None) -> str | None:
    """Return the event id of a session, so that a repeated sign-out has the same id. A key is never reused."""
    if not session_key or settings.SESSION_ENGINE == SIGNED_COOKIES:
        return None
    return str(salted_hmac(f"{_SALT}.id", session_key, algorithm="sha256").hexdigest())[:40]


def session_exists(session: object) -> bool:
    """Return whether the session is in Django's store. Raises the store's errors. Runs on a thread of the publisher."""
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
