"""A Flask application whose sign-outs reach every client: sessions in SQLite, the publisher beside them.

pip install flask gunicorn logout_notifier_publisher-VERSION-py3-none-any.whl  # by `make publishers`, or of a release
export SESSIONS=sessions.db NOTIFIER_URL=amqps://idp@rabbitmq.example.com NOTIFIER_SECRET_FILE=password NOTIFIER_OUTBOX=outbox
gunicorn --preload --workers 4 flask_app:app
"""  # noqa: E501, INP001  a file to copy

import os
import secrets
import sqlite3

from flask import Flask, Response, make_response, request
from logout_notifier_publisher import BlockingPublisher, PublisherSettings, SessionEnded

ISSUER = os.environ.get("ISSUER", "https://id.example.com")

app = Flask(__name__)


def sessions() -> sqlite3.Connection:
    """The store of sessions. `handle` is no secret; `key` is the cookie."""
    database = sqlite3.connect(os.environ["SESSIONS"], timeout=10)
    database.execute("CREATE TABLE IF NOT EXISTS sessions (key TEXT PRIMARY KEY, handle TEXT, user TEXT, sid TEXT)")
    return database


def lives(handle: object) -> bool:
    """Asked for what a process left that was killed amid a sign-out. Raises if the database is away: asked again."""
    with sessions() as database:
        return database.execute("SELECT 1 FROM sessions WHERE handle = ?", (handle,)).fetchone() is not None


# Mistakes in the settings stop the start. Its thread starts at the first use, in the process that uses it.
publisher = BlockingPublisher(
    PublisherSettings(
        url=os.environ["NOTIFIER_URL"],
        secret_file=os.environ["NOTIFIER_SECRET_FILE"],
        outbox=os.environ["NOTIFIER_OUTBOX"],
        exchange=os.environ.get("NOTIFIER_EXCHANGE", "notifier.events"),
    ),
    alive=lives,
)


@app.post("/sign-in")
def sign_in() -> Response:
    """Your own way to find out who it is belongs here."""
    key, handle, sid = (secrets.token_urlsafe(16) for _ in range(3))
    with sessions() as database:
        database.execute("INSERT INTO sessions VALUES (?, ?, ?, ?)", (key, handle, request.form["user"], sid))
    answer = make_response({"sub": request.form["user"], "sid": sid})  # what the ID token says
    answer.set_cookie("session", key, httponly=True, samesite="Lax", secure=request.is_secure)
    return answer


@app.post("/sign-out")
def sign_out() -> Response:
    """The event is on disk before the session is deleted, and published after it."""
    key = request.cookies.get("session", "")
    with sessions() as database:
        found = database.execute("SELECT handle, user, sid FROM sessions WHERE key = ?", (key,)).fetchone()
    if found is not None:
        handle, user, sid = found
        ended = SessionEnded(iss=ISSUER, sub=user, sid=sid, clients=["mail", "shop"], reason="user_logout")
        with publisher.publishing(ended, session=handle), sessions() as database:
            database.execute("DELETE FROM sessions WHERE key = ?", (key,))
    answer = make_response("signed out")
    answer.delete_cookie("session")
    return answer
