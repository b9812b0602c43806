"""The Django app: it connects to the sign-out signal, checks the settings, and holds the publisher of this process."""

import sys
import threading
from pathlib import Path
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004  Django's name
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import request_started

from logout_notifier_publisher.blocking_publisher import BlockingPublisher
from logout_notifier_publisher.django import django_settings
from logout_notifier_publisher.django.django_settings import SIGNED_COOKIES, DjangoPublisherSettings
from logout_notifier_publisher.publisher_settings import SettingsError

MANAGEMENT_COMMANDS = frozenset({"manage.py", "django-admin", "django-admin.exe", "__main__.py"})


class NotifierPublisherConfig(AppConfig):
    """Mistakes in `NOTIFIER` prevent a server's start. Management commands report them as Django checks."""

    name = "logout_notifier_publisher.django"
    label = "notifier_publisher"
    verbose_name = "notifier"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._lock = threading.Lock()
        self._settings: DjangoPublisherSettings | None = None
        self._publisher: BlockingPublisher | None = None

    def ready(self) -> None:
        """Connect the signals. Starts no thread, because a server may fork afterwards."""
        from django.contrib.auth.signals import user_logged_out  # noqa: PLC0415  needs the loaded apps

        from logout_notifier_publisher.django.sign_outs import on_user_logged_out  # noqa: PLC0415  likewise

        register(_check)
        user_logged_out.connect(on_user_logged_out, dispatch_uid="notifier.publisher")
        if Path(sys.argv[0]).name not in MANAGEMENT_COMMANDS:
            try:
                self.read_settings()
            except SettingsError as mistake:
                listed = "".join(f"\n  {name} {text}" for name, text in mistake.mistakes)
                raise ImproperlyConfigured(f"NOTIFIER cannot be used:{listed}") from None
        request_started.connect(self._on_first_request, dispatch_uid="notifier.publisher")

    def read_settings(self) -> DjangoPublisherSettings:
        """Return the settings. Raises SettingsError."""
        if self._settings is None:
            self._settings = django_settings.read()
        return self._settings

    def publisher(self) -> BlockingPublisher:
        """Return the publisher of this process; a forked process starts a new one. Raises SettingsError."""
        with self._lock:
            if self._publisher is None:
                from logout_notifier_publisher.django.session_lookup import session_exists  # noqa: PLC0415  needs the settings

                self._publisher = BlockingPublisher(self.read_settings().publisher, alive=session_exists)
            return self._publisher

    def _on_first_request(self, **more: object) -> None:
        """Start the publisher, which takes over the events of dead processes. Does not delay the request."""
        del more
        request_started.disconnect(dispatch_uid="notifier.publisher")
        threading.Thread(target=self._start, name="notifier-publisher-start", daemon=True).start()

    def _start(self) -> None:
        try:
            self.publisher().start()
        except SettingsError:
            return  # `runserver` has already reported the mistakes


def _check(**more: object) -> list[CheckMessage]:
    del more
    found: list[CheckMessage] = []
    try:
        django_settings.read()
    except SettingsError as mistake:
        found += [Error(f"NOTIFIER: {name} {text}", id="notifier.E001") for name, text in mistake.mistakes]
    if settings.SESSION_ENGINE == SIGNED_COOKIES:
        text = "Sessions in signed cookies cannot be looked up: a sign-out that is rolled back is published too."
        found.append(Warning(text, hint="Use another SESSION_ENGINE.", id="notifier.W001"))
    return found
