"""A secret is found in each of the usual spellings in which receivers quote it."""

import html
import json
from urllib.parse import quote, quote_plus

import pytest

from notifier.model.redaction import redact_secret

SUBJECT = "Jürgen O'Neill/a+b=<c>&d@example.com"


@pytest.mark.parametrize(
    "quoted",
    [
        SUBJECT,
        SUBJECT.lower(),
        json.dumps(SUBJECT),
        json.dumps(SUBJECT, ensure_ascii=False),
        json.dumps(SUBJECT).replace("/", "\\/"),
        quote(SUBJECT),
        quote(SUBJECT, safe="").lower(),
        quote_plus(SUBJECT),
        html.escape(SUBJECT),
        "".join(each if each.isascii() and each.isalnum() else f"&#{ord(each)};" for each in SUBJECT),
    ],
)
def test_each_spelling_is_taken_out(quoted: str) -> None:
    """PHP escapes slashes in JSON, others all that is not ASCII; and some lower the case of names."""
    assert (
        redact_secret(f"no session of {quoted} here", SUBJECT, "[sub]").replace('"', "") == "no session of [sub] here"
    )


def test_the_rest_of_the_text_stays() -> None:
    """A backslash in the name put in its place means nothing."""
    assert redact_secret("Ünknown user alice; ALICE", "alice", "[\\1]") == "Ünknown user [\\1]; [\\1]"
