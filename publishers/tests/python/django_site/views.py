"""What a project has: ways to sign in and out, and ways in which that goes wrong."""

import os
import signal
from typing import Any

from django.contrib.auth import get_user_model, login, logout
from django.contrib.auth.signals import user_logged_out
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from logout_notifier_publisher.django import publisher, session_sid, user_ended


def clients_of(request: Any, user: Any) -> list[str]:
    """NOTIFIER's CLIENTS."""
    del request
    return ["mail", f"app-of-{user.pk}"]


def sign_in(request: HttpRequest) -> HttpResponse:
    """As the user named; with `sid` the session has one."""
    user, _ = get_user_model().objects.get_or_create(username=request.GET["user"])
    login(request, user)
    sid = session_sid(request) if "sid" in request.GET else None
    return JsonResponse({"sub": str(user.pk), "sid": sid, "pid": os.getpid()})


def sign_out(request: HttpRequest) -> HttpResponse:
    """As each project does."""
    logout(request)
    return HttpResponse("signed out")


def sign_out_and_fail(request: HttpRequest) -> HttpResponse:
    """The transaction is rolled back, and with it the end of the session."""
    logout(request)
    raise RuntimeError("the view fails after logout()")


def sign_out_and_die(request: HttpRequest) -> HttpResponse:
    """Killed after the event was written; before the session is deleted, or just after it."""
    if request.GET["when"] == "before":
        user_logged_out.send(sender=type(request.user), request=request, user=request.user)
    else:
        logout(request)
        transaction.get_connection().connection.commit()
    os.kill(os.getpid(), signal.SIGKILL)
    return HttpResponse("never shown")


def end_all(request: HttpRequest) -> HttpResponse:
    """A changed password."""
    user_ended(request.user, request=request)
    return HttpResponse("published")


def state(request: HttpRequest) -> HttpResponse:
    """Of this process."""
    del request
    return JsonResponse({"waiting": publisher().state.waiting, "user": None})


def whoami(request: HttpRequest) -> HttpResponse:
    """Whether the session lives."""
    return JsonResponse({"user": request.user.get_username()})


urlpatterns = [
    path("sign-in", sign_in),
    path("sign-out", sign_out),
    path("sign-out-and-fail", sign_out_and_fail),
    path("sign-out-and-die", sign_out_and_die),
    path("end-all", end_all),
    path("state", state),
    path("whoami", whoami),
]
