"""What the API server asks a kubelet: a container's log, for `helm test`, and `kubectl exec`.

A command's streams are channels of one WebSocket (`v5.channel.k8s.io`): the first byte of a message names the channel.
"""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any

from aiohttp import WSMsgType, web

from tests.cluster.pod import Pod
from tests.cluster.pod_container import PodContainer

PROTOCOL = "v5.channel.k8s.io"
STDIN, STDOUT, STDERR, STATUS, CLOSED = 0, 1, 2, 3, 255
CHUNK = 64 * 1024


class Kubelet:
    """`pods` are those of all nodes, by uid."""

    def __init__(self, pods: Mapping[str, Pod]) -> None:
        self._pods = pods
        self.app = web.Application()
        where = "{namespace}/{pod}/{container}"
        self.app.router.add_get(f"/containerLogs/{where}", self._log)
        self.app.router.add_get(f"/exec/{where}", self._exec)

    def _find(self, request: web.Request) -> PodContainer:
        wanted = request.match_info
        for pod in self._pods.values():
            if (pod.namespace, pod.name) == (wanted["namespace"], wanted["pod"]):
                found = pod.container(wanted["container"])
                if found is not None:
                    return found
        raise web.HTTPNotFound(text="there is no such container here")

    async def _log(self, request: web.Request) -> web.Response:
        return web.Response(body=self._find(request).log.read_bytes())

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        container = self._find(request)
        if container.sandbox is None or not container.sandbox.running:
            raise web.HTTPInternalServerError(text="the container does not run")
        socket = web.WebSocketResponse(protocols=(PROTOCOL,))
        await socket.prepare(request)
        process = await container.sandbox.execute(request.query.getall("command"))
        assert process.stdout is not None
        assert process.stderr is not None
        writing = asyncio.create_task(_feed(socket, process))
        await asyncio.gather(_pass_on(process.stdout, socket, STDOUT), _pass_on(process.stderr, socket, STDERR))
        code = await process.wait()
        await socket.send_bytes(bytes([STATUS]) + json.dumps(_status(code)).encode())
        writing.cancel()
        await socket.close()
        return socket


async def _pass_on(stream: asyncio.StreamReader, socket: web.WebSocketResponse, channel: int) -> None:
    while data := await stream.read(CHUNK):
        await socket.send_bytes(bytes([channel]) + data)


async def _feed(socket: web.WebSocketResponse, process: asyncio.subprocess.Process) -> None:
    """What the caller types, until it closes that channel or hangs up."""
    assert process.stdin is not None
    async for message in socket:
        if message.type is not WSMsgType.BINARY or not message.data:
            continue
        channel, data = message.data[0], message.data[1:]
        if channel == CLOSED:
            break
        if channel == STDIN:
            with contextlib.suppress(ConnectionError):
                process.stdin.write(data)
                await process.stdin.drain()
    process.stdin.close()


def _status(code: int) -> dict[str, Any]:
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    details = {"causes": [{"reason": "ExitCode", "message": str(code % 256)}]}
    message = f"command terminated with non-zero exit code: exit code {code}"
    return {"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode", "message": message, "details": details}


@contextlib.asynccontextmanager
async def kubelet(pods: Mapping[str, Pod], certificate: ssl.SSLContext) -> AsyncIterator[int]:
    """A server for all nodes, on loopback; its port."""
    runner = web.AppRunner(Kubelet(pods).app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=certificate).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
