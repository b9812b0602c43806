"""How many of each, and the databases."""

import contextlib
import os
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

import pytest

from tests.apt_programs import ProgramMissing
from tests.databases import DatabaseServer, mariadb, postgresql
from tests.keycloak_installation import KeycloakMissing, required

T = TypeVar("T")
Form = Callable[[int, int], int]
LONG = os.environ.get("NOTIFIER_TEST_FAULTS") == "long"
long_form_alone = pytest.mark.skipif(not LONG, reason="NOTIFIER_TEST_FAULTS=long does it: it starts a Keycloak or more")


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
def form() -> Form:
    """`form(short, long)`: the second where NOTIFIER_TEST_FAULTS=long, as in tests/faults."""
    return lambda short, longer: longer if LONG else short


@pytest.fixture
def chance() -> random.Random:
    """The same in every run, unless the environment names another seed."""
    return random.Random(int(os.environ.get("NOTIFIER_TEST_FAULTS_SEED", "1")))


@pytest.fixture(scope="module")
def postgres() -> Iterator[DatabaseServer]:
    """A PostgreSQL."""
    try:
        with postgresql() as server:
            yield server
    except ProgramMissing as reason:
        missing(reason)


@pytest.fixture(scope="module")
def maria() -> Iterator[DatabaseServer]:
    """A MariaDB, which repeats reads."""
    try:
        with mariadb() as server:
            yield server
    except ProgramMissing as reason:
        missing(reason)
