"""Publish the sign-outs of Django: one session, or all sessions of a user."""

import secrets
from typing import Any

from django.apps import apps
from django.db import transaction

from logout_notifier_publisher.blocking_publisher import BlockingPublisher
from logout_notifier_publisher.django.django_settings import SID
from logout_notifier_publisher.django.session_lookup import derive_event_id, encrypt_session_key
from logout_notifier_publisher.guarded_log import log
from logout_notifier_publisher.publisher_settings import format_error_without_user_data
from logout_notifier_publisher.session_ended import SessionEnded

# How long the lookup is repeated while the session exists: the view's transaction may still be open.
LOOKUP_SECONDS = 300.0


def on_user_logged_out(sender: object, request: Any, user: Any, **more: object) -> None:
    """Handle `user_logged_out`, which is sent before the session is deleted. Never raises into `logout()`."""
    del sender, more
    if user is None or request is None:
        return
    try:
        config = apps.get_app_config("notifier_publisher")
        settings = config.read_settings()
        session_key = getattr(request.session, "session_key", None)
        ended = SessionEnded(
            id=derive_event_id(session_key),
            iss=settings.issuer(request, user),
            sub=settings.sub(user),
            sid=settings.sid(request),
            clients=settings.clients(request, user),
            reason="user_logout",
        )
        get_publisher().prepare(ended, session=encrypt_session_key(session_key)).publish_or_discard(
            patience=LOOKUP_SECONDS
        )
    except Exception as error:  # noqa: BLE001  an error must not stop a sign-out
        _log_loss(error)


def user_ended(user: Any, *, reason: str, request: Any) -> None:
    """Publish the end of all sessions of the user."""

    def publish() -> None:
        try:
            get_publisher().publish(ended)
        except Exception as error:  # noqa: BLE001  an error must not stop a changed password
            _log_loss(error)

    try:
        settings = apps.get_app_config("notifier_publisher").read_settings()
        ended = SessionEnded(
            iss=settings.issuer(request, user),
            sub=settings.sub(user),
            clients=settings.clients(request, user),
            reason=reason,
        )
        transaction.on_commit(publish)
    except Exception as error:  # noqa: BLE001  likewise
        _log_loss(error)


def get_or_create_sid(request: Any) -> str:
    """Return the `sid` in the request's session. Creates it if the session has none."""
    found = request.session.get(SID)
    if found is None:
        found = request.session[SID] = secrets.token_urlsafe(16)
    return str(found)


def get_publisher() -> BlockingPublisher:
    """Return the publisher of this process."""
    found: BlockingPublisher = apps.get_app_config("notifier_publisher").publisher()
    return found


def _log_loss(error: Exception) -> None:
    """Log the cause without the error's text, which may contain user data."""
    log.error(
        "a sign-out could not be stored (%s): no client is notified. `manage.py check` lists mistakes in NOTIFIER",
        format_error_without_user_data(error),
    )
