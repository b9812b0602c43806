"""Its database, and what is left out where Keycloak cannot be had."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

import pytest

from tests.support.apt_programs import ProgramMissing
from tests.support.databases import DatabaseServer, postgresql
from tests.support.keycloak_installation import KeycloakMissing, required

T = TypeVar("T")


def missing(reason: Exception) -> None:
    """Leave the test out, or fail where it must run."""
    if required():
        pytest.fail(str(reason))
    pytest.skip(str(reason))


@contextlib.asynccontextmanager
async def had(made: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """What it makes; the test is left out, or fails, where Keycloak cannot be had."""
    try:
        async with made as found:
            yield found
    except KeycloakMissing as reason:
        missing(reason)


@pytest.fixture(scope="module")
def postgres() -> Iterator[DatabaseServer]:
    """A PostgreSQL."""
    try:
        with postgresql() as server:
            yield server
    except ProgramMissing as reason:
        missing(reason)
