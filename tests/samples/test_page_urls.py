"""The samples that build the URL of a front-channel page: notifier opens their sealed contexts.

They are run unchanged, in Python, Java and Node. C# is not run.
"""

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import pytest
from cryptography.fernet import Fernet, MultiFernet

from notifier.features.browsers.front_channel_context import OpenedContext, open_context
from notifier.model.client import FrontChannelClient
from notifier.model.front_channel import FrontChannelContext
from tests.samples.languages import EXAMPLES
from tests.support.apt_programs import program
from tests.support.npm_modules import NODE

BASE = "https://login.example.com/connect/notify"
VECTORS = json.loads((EXAMPLES / "page-urls.json").read_text("utf-8"))
KEY = base64.urlsafe_b64encode(bytes(range(200, 232))).decode()  # it has `-` or `_`, and `=` at its end
LANGUAGES = ["Python", "Node", "Java"]


def _command(language: str) -> Sequence[str]:
    match language:
        case "Python":
            return [sys.executable, str(EXAMPLES / "page_url.py")]
        case "Node":
            return [str(NODE), str(EXAMPLES / "page_url.mjs")]
        case _:
            return [program("java", "default-jdk-headless"), str(EXAMPLES / "PageUrl.java")]


def _run(language: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PAGE_KEY": KEY, "LC_ALL": "C.UTF-8"}
    command = [*_command(language), BASE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


def _opened(url: str) -> OpenedContext | None:
    assert url.startswith(f"{BASE}/front-channel/gAAAA")
    return open_context(url.removeprefix(f"{BASE}/front-channel/"), MultiFernet([Fernet(KEY)]), time.time())


def _context(document: list[Any]) -> FrontChannelContext:
    iss, sid, *clients = document
    entries = tuple((each, None) if isinstance(each, str) else (each[0], each[1]) for each in clients)
    brought = {
        each[0]: FrontChannelClient(frontchannel_logout_uri=each[2], frontchannel_logout_session_required=each[3])
        for each in clients
        if len(each) == 4 and not isinstance(each, str)
    }
    return FrontChannelContext(iss=iss, sid=sid, clients=entries, supplied=brought)


@pytest.mark.parametrize("vector", VECTORS, ids=range(len(VECTORS)))
def test_documented_context_is_opened(vector: Any) -> None:
    """For functions of other languages: by its key only, for ten minutes."""
    keys, at = MultiFernet([Fernet(vector["key"])]), vector["sealed_at"]
    opened = open_context(vector["context"], keys, at + 599)
    assert opened is not None
    assert opened.context == _context(vector["opens_to"])
    assert open_context(vector["context"], keys, at + 601) is None
    assert open_context(vector["context"], MultiFernet([Fernet(KEY)]), at) is None


@pytest.mark.parametrize("language", LANGUAGES)
def test_sealed_contexts_of_the_samples_are_opened(language: str) -> None:
    """Any text, clients with their own sid or address, and an event without a sid."""
    iss, sid = "https://login.example.com/realms/büro", 'a"b\\c'
    done = _run(language, iss, sid, "billing", "shop=own", "Büro 日本 \t 1")
    assert done.returncode == 0, done.stderr
    opened = _opened(done.stdout.strip())
    assert opened is not None
    assert opened.context == _context([iss, sid, "billing", ["shop", "own"], "Büro 日本 \t 1"])
    uris = "https://new.example.net/out?a=1&b=2", "https://other.example.net/"
    done = _run(language, iss, "", "billing", f"new==required={uris[0]}", f"other=own=optional={uris[1]}")
    assert done.returncode == 0, done.stderr
    opened = _opened(done.stdout.strip())
    assert opened is not None
    clients = ["billing", ["new", None, uris[0], True], ["other", "own", uris[1], False]]
    assert opened.context == _context([iss, None, *clients])
