"""One Redis and one set of keys for all tests here; each test has a part of the broker to itself."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from publishers.tests.oidc_provider.harness import Harness, Keys, make_harness, make_keys
from publishers.tests.oidc_provider.provider import VERSIONS
from publishers.tests.oidc_provider.redis_server import RedisServer, redis_server
from tests.support.apt_programs import ProgramMissing

newest = pytest.mark.parametrize("version", VERSIONS[:1], indirect=True)
"""Run tests that concern only the package with one version of the library."""


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """The provider's and notifier's."""
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def one_redis() -> Iterator[RedisServer]:
    """Start a private Redis."""
    try:
        with redis_server() as server:
            yield server
    except ProgramMissing as missing:
        pytest.fail(str(missing))


@pytest.fixture
def redis(one_redis: RedisServer) -> str:
    """An empty one."""
    assert one_redis.ask("FLUSHALL").startswith(b"+OK")
    return one_redis.url


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    """The library's."""
    return str(request.param)


@pytest.fixture
async def harness(
    tmp_path: Path, version: str, keys: Keys, redis: str, amqp_url: str, prefix: str
) -> AsyncIterator[Harness]:
    """What one test stands on."""
    async with make_harness(tmp_path, version=version, keys=keys, redis=redis, broker=amqp_url, prefix=prefix) as made:
        yield made
