"""The register of pauses: one document that all processes share, on each queue."""

import asyncio

import pytest

from notifier.model.errors import NotifierError, QueueError, UnknownVersion
from notifier.model.pauses import NO_PAUSES, Pause, PauseDocument, Register
from tests.contract.queues import Place

ISS = "https://op.example"


async def pause(register: Register, client_id: str) -> PauseDocument:
    """Pause this client for an hour, at the time 100."""
    new = Pause(id=client_id, iss=ISS, client_id=client_id, who="alice", reason="deploy", since=100.0, until=3700.0)
    return await register.change(lambda document: document.pause_clients([new], 100.0))


def paused(document: PauseDocument) -> set[str]:
    """The IDs of the paused clients."""
    return {client_id for _, client_id in document.in_force(101.0)}


async def test_new_register_is_empty(place: Place) -> None:
    """As if a document without pauses had been written."""
    assert await (await place.open()).register.read() == NO_PAUSES


async def test_change_is_read_by_others(place: Place) -> None:
    """By an open queue, a closed queue, and a queue that opens later."""
    first = await place.open()
    changed = await pause(first.register, "shop")
    read = [await queue.register.read() for queue in (first, place.closed(), await place.open())]
    assert (paused(changed), read) == ({"shop"}, [changed] * 3)


async def test_closed_queue_can_change_it(place: Place) -> None:
    """A command does not open the queue on RabbitMQ."""
    first = await place.open()
    await pause(place.closed().register, "shop")
    assert paused(await first.register.read()) == {"shop"}


async def test_no_change_is_lost(place: Place) -> None:
    """Twenty at the same time, by two processes, while a third reads."""
    registers = [(await place.open()).register, (await place.open()).register, (await place.open()).register]
    changes = (pause(registers[number % 2], str(number)) for number in range(20))
    *_, seen = await asyncio.gather(*changes, _versions(registers[2]))
    assert isinstance(seen, list)
    assert (paused(await registers[2].read()), seen) == ({str(number) for number in range(20)}, sorted(seen))


async def _versions(register: Register) -> list[int]:
    return [(await register.read()).version for _ in range(10)]


@pytest.mark.parametrize("error", [QueueError("refused"), UnknownVersion("refused")])
async def test_failed_edit_changes_nothing(place: Place, error: NotifierError) -> None:
    """And the document can be read and changed at once."""
    register = (await place.open()).register
    before = await pause(register, "shop")

    def fail(_document: PauseDocument) -> PauseDocument:
        raise error

    with pytest.raises(type(error), match="refused"):
        await register.change(fail)
    assert await register.read() == before
    assert paused(await pause(register, "crm")) == {"shop", "crm"}


@pytest.mark.parametrize("client_id", ["c" * 1025, "\udcff"])
async def test_change_that_nobody_could_read_is_refused(place: Place, client_id: str) -> None:
    """And the document can be read and changed at once."""
    register = (await place.open()).register
    before = await pause(register, "shop")
    with pytest.raises(QueueError, match="nothing was changed"):
        await pause(register, client_id)
    assert await register.read() == before
    assert paused(await pause(register, "crm")) == {"shop", "crm"}


async def test_unchanged_document_is_not_written(place: Place) -> None:
    """Such as when a client is resumed that is not paused."""
    register = (await place.open()).register
    before = await pause(register, "shop")
    assert await register.change(lambda document: document) == before
