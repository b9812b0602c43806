"""For Django: tells of each `logout()`. `"logout_notifier_publisher.django"` in INSTALLED_APPS, settings in `NOTIFIER`.

`user_logged_out` is sent before the session is deleted, so the event is on disk before that. It is published once the
store says that the session is gone. So it does not matter how the view goes on: what a rolled back transaction brings
back lives, and its event is dropped.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logout_notifier_publisher.blocking_publisher import BlockingPublisher

__all__ = ["publisher", "session_sid", "user_ended"]


def session_sid(request: object) -> str:
    """The `sid` of this request's session, for the ID token. Made at the first call, and kept in the session.

    Never the session's key, which is a secret. The event has it only where this was called.
    """
    from logout_notifier_publisher.django.sign_outs import session_sid as sid_of  # noqa: PLC0415  needs Django's settings

    return sid_of(request)


def user_ended(user: object, *, reason: str = "terminated", request: object = None) -> None:
    """Tell that all sessions of the user have ended: a changed password, a disabled or deleted account. Never raises.

    In a transaction it is told after the commit.
    """
    from logout_notifier_publisher.django.sign_outs import user_ended as tell  # noqa: PLC0415  needs Django's settings

    tell(user, reason=reason, request=request)


def publisher() -> "BlockingPublisher":
    """The publisher of this process. Raises SettingsMistake."""
    from logout_notifier_publisher.django.sign_outs import the_publisher  # noqa: PLC0415  needs Django's settings

    return the_publisher()
