"""A library with other internals: aiormq's public ways are used, and a pamqp that cannot decode is refused."""

from collections.abc import Iterator
from importlib.metadata import version

import aiormq.connection
import pytest

from notifier.model.errors import ConfigurationError
from notifier.queues.rabbitmq.connection import connect
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.rabbitmq.wire.aiormq_hooks import TRIED_AIORMQ, TRIED_PAMQP, install
from notifier.queues.rabbitmq.wire.frames import LeanReceiver
from tests.support.library_changes import HOOKS, decoding


@pytest.fixture(autouse=True)
def first_look(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Examine the libraries again in this test, and after it."""
    install.cache_clear()
    yield
    monkeypatch.undo()
    install.cache_clear()
    install()


def test_the_versions_that_are_shipped_fit() -> None:
    """And they fit again, where the hooks are in place."""
    for _ in range(2):
        install.cache_clear()
        assert [hook.name for hook in install().values() if hook.difference] == []


@pytest.mark.parametrize("name", ["frames", "messages", "confirms", "alarms"])
def test_hook_that_does_not_fit_is_not_used(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """That hook alone is off, and has the installed version and those with which it works."""
    HOOKS[name](monkeypatch.setattr)
    off = [hook for hook in install().values() if hook.difference]
    assert [hook.name for hook in off] == [name]
    assert off[0].reason.startswith(f"aiormq {version('aiormq')} has other internals than {TRIED_AIORMQ} (")
    assert (vars(aiormq.connection)["FrameReceiver"] is LeanReceiver) == (name != "frames")


async def test_a_pamqp_that_cannot_decode_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the installed version and the versions that work; nothing is connected to."""
    decoding(monkeypatch.setattr)
    nobody = RabbitOptions(urls=("amqp://127.0.0.1:9/",))
    wanted = rf"^pamqp: {version('pamqp')} has other internals .* install one of {TRIED_PAMQP} \("
    with pytest.raises(ConfigurationError, match=wanted):
        await connect(nobody, "test")
