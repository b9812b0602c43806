"""Publish each Django `logout()`: add `"logout_notifier_publisher.django"` to INSTALLED_APPS, settings to `NOTIFIER`.

`user_logged_out` is sent before the session is deleted, so the event is stored first. It is published once the session
is deleted from the store. If the view's transaction is rolled back, the session still exists, and the event is dropped.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logout_notifier_publisher.blocking_publisher import BlockingPublisher

__all__ = ["publisher", "session_sid", "user_ended"]


def session_sid(request: object) -> str:
    """Return the `sid` of this request's session, for the ID token. Created at the first call and kept in the session.

    It is never the session's key, which is a secret. An event has a `sid` only if this was called for its session.
    """
    from logout_notifier_publisher.django.sign_outs import get_or_create_sid  # noqa: PLC0415  needs Django's settings

    return get_or_create_sid(request)


def user_ended(user: object, *, reason: str = "terminated", request: object = None) -> None:
    """Publish the end of all sessions of the user, such as after a changed password or a deleted account. Never raises.

    In a transaction, the event is published after the commit.
    """
    from logout_notifier_publisher.django.sign_outs import user_ended as publish  # noqa: PLC0415  needs Django's settings

    publish(user, reason=reason, request=request)


def publisher() -> "BlockingPublisher":
    """Return the publisher of this process. Raises SettingsError."""
    from logout_notifier_publisher.django.sign_outs import get_publisher  # noqa: PLC0415  needs Django's settings

    return get_publisher()
