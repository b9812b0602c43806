"""How a broker may answer during the handshake: only a refusal ends a start, which waits for everything else."""

import asyncio

import pytest
from pamqp import commands, frame
from pamqp.base import Frame
from pamqp.heartbeat import Heartbeat

from notifier.model.errors import QueueError, QueueUnavailable
from notifier.queues.rabbitmq.connection import connect
from notifier.queues.rabbitmq.options import RabbitOptions

START = commands.Connection.Start(server_properties={"capabilities": {}})
TUNE = commands.Connection.Tune(channel_max=10, frame_max=131_072, heartbeat=60)


def close(code: int, text: str) -> commands.Connection.Close:
    """The broker's close."""
    return commands.Connection.Close(code, text, 0, 0)


@pytest.mark.parametrize("first", [START, TUNE])
@pytest.mark.parametrize(
    ("answer", "refusal"),
    [
        (close(530, "NOT_ALLOWED - vhost x not found"), True),
        (close(403, "ACCESS_REFUSED - login was refused"), True),
        (close(320, "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'"), False),
        (close(541, "INTERNAL_ERROR"), False),
        (Heartbeat(), False),
    ],
)
async def test_only_a_refusal_is_an_error_that_a_start_does_not_wait_out(
    first: Frame, answer: Frame | Heartbeat, refusal: bool
) -> None:
    """A broker that stops closes with 320 or 541, and a busy one may send a heartbeat before it opens."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)
        for sent in (START, TUNE)[: 1 if first is START else 2]:
            writer.write(frame.marshal(sent, 0))
            await reader.read(4096)
        writer.write(answer.marshal() if isinstance(answer, Heartbeat) else frame.marshal(answer, 0))
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(QueueError) as caught:
            await connect(RabbitOptions(urls=(f"amqp://127.0.0.1:{port}/",)), "test")
        assert isinstance(caught.value, QueueUnavailable) != refusal
        if isinstance(answer, commands.Connection.Close):
            assert answer.reply_text in str(caught.value)
