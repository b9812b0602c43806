"""A lack of open files is a limit of the process, and not a failure of the client."""

import contextlib
import os
import resource
from collections.abc import Iterator

import pytest

from notifier.model.errors import InternalFault
from notifier.model.outcome import Cause, HttpResponse, Reason
from notifier.network.http.transport import HttpTransport
from tests.network.http.http_requests import PLENTY, ScriptedResolver, broken, opened, request
from tests.support.receivers import scripted


@contextlib.contextmanager
def no_further_file() -> Iterator[None]:
    """Let the process open no further file or connection meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_connection_that_cannot_be_opened_is_no_failure_of_the_client(transport: HttpTransport) -> None:
    """It is an internal fault. A kept connection is still used."""
    async with scripted() as receiver, scripted() as other:
        assert await transport.post(request(receiver.url)) == HttpResponse(status=200)
        with no_further_file():
            with pytest.raises(InternalFault, match="limit of open files") as caught:
                await transport.post(request(other.url))
            assert caught.value.cause is Cause.OPEN_FILES
            assert await transport.post(request(receiver.url)) == HttpResponse(status=200)
        assert await transport.post(request(other.url)) == HttpResponse(status=200)


async def test_a_name_that_cannot_be_resolved_for_lack_of_a_file() -> None:
    """The resolver only reports that it found nothing. With files left, that is a failure of the name."""
    async with opened(ScriptedResolver({})) as transport:
        with no_further_file(), pytest.raises(InternalFault) as caught:
            await transport.post(request("http://shop.example/", within=PLENTY))
        assert caught.value.cause is Cause.OPEN_FILES
        assert broken(await transport.post(request("http://shop.example/"))) == (Reason.DNS, False)
