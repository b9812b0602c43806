"""A library that is inside another than the versions tried is refused, before anything is taken or sent by it."""

from collections.abc import Iterator
from importlib.metadata import version

import pytest

from notifier.model.errors import ConfigurationError
from notifier.queues.rabbitmq.connection import connect
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.rabbitmq.wire.aiormq_hooks import install
from tests.queues.rabbitmq.aiormq_changes import CHANGES, Change


@pytest.fixture(autouse=True)
def first_look() -> Iterator[None]:
    """Nothing was looked at so far, and nothing of this is remembered."""
    install.cache_clear()
    yield
    install.cache_clear()


def test_the_versions_that_are_shipped_fit() -> None:
    """And they fit again, where the hooks are in place."""
    install()
    install.cache_clear()
    install()


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
async def test_another_inside_is_refused(change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names what is installed and what to install, and connects to nothing."""
    change(monkeypatch)
    library = CHANGES[change]
    nobody = RabbitOptions(urls=("amqp://127.0.0.1:9/",))
    with pytest.raises(ConfigurationError, match=rf"^{library}: {version(library)} differs .* install [0-9.]+ \("):
        await connect(nobody, "test")
