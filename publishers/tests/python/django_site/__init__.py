"""A Django project: real sessions in SQLite, sign-in and sign-out over HTTP."""
