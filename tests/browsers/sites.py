"""Sites over https for a browser to visit: an identity server behind nginx, as documents have it, and clients.

Each host has a handler. All keys are made for the test, and the browser is told to trust them alone.
"""

import asyncio
import base64
import contextlib
import hashlib
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.apt_programs import program
from tests.certificates import authority

LOOPBACK = "127.0.0.1"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_NGINX = """daemon off; pid {folder}/nginx.pid; worker_processes 1; user root; events {{}}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen {port} ssl; ssl_certificate {pem}; ssl_certificate_key {pem};
    {locations}
    location / {{ proxy_pass http://127.0.0.1:{behind}; proxy_set_header Host $http_host; }}
  }}
}}
"""


class Sites:
    """The sites. `key` is what a browser must trust."""

    def __init__(self, port: int, plain: int, server: str, server_port: int, key: str) -> None:
        self._port = port
        self._plain = plain
        self._server = server
        self._server_port = server_port
        self.key = key

    def origin(self, host: str) -> str:
        """As browsers write it."""
        return f"https://{host}:{self._server_port if host == self._server else self._port}"

    def plain(self, host: str) -> str:
        """The same by http."""
        return f"http://{host}:{self._plain}"


@asynccontextmanager
async def sites(handlers: Mapping[str, Handler], server: str, locations: str) -> AsyncIterator[Sites]:
    """Serve `handlers`, by host, while entered. nginx is in front of the host `server`, with these locations."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        assert isinstance(request, web.Request)
        return await handlers[request.host.partition(":")[0]](request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    with tempfile.TemporaryDirectory(prefix="notifier-sites-") as name:
        folder = Path(name)
        pem = authority(folder).issue(*handlers)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        try:
            for tls in (context, None):
                await web.TCPSite(runner, LOOPBACK, 0, ssl_context=tls).start()
            port, behind = (address[1] for address in runner.addresses)
            async with _nginx(folder, pem, behind, locations) as front:
                yield Sites(port, behind, server, front, _public_key(pem))
        finally:
            await runner.cleanup()


@asynccontextmanager
async def _nginx(folder: Path, pem: Path, behind: int, locations: str) -> AsyncIterator[int]:
    listening = await asyncio.start_server(lambda _reader, writer: writer.close(), LOOPBACK, 0)
    port: int = listening.sockets[0].getsockname()[1]
    listening.close()
    file = folder / "nginx.conf"
    file.write_text(
        _NGINX.format(folder=folder, port=f"{LOOPBACK}:{port}", pem=pem, behind=behind, locations=locations)
    )
    command = [program("nginx", "nginx-light", "/usr/sbin"), "-c", str(file), "-p", str(folder), "-e", "stderr"]
    process = await asyncio.create_subprocess_exec(*command)
    try:
        async with asyncio.timeout(30):
            while process.returncode is None:
                with contextlib.suppress(OSError):
                    (await asyncio.open_connection(LOOPBACK, port))[1].close()
                    break
                await asyncio.sleep(0.02)
        assert process.returncode is None, "nginx did not start; it says why above"
        yield port
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _public_key(pem: Path) -> str:
    """As Chromium is told of it: the SHA-256 of the SubjectPublicKeyInfo."""
    certificate = x509.load_pem_x509_certificate(pem.read_bytes())
    info = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(info).digest()).decode()
