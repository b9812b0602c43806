"""The sites of a test in a browser: an identity server behind a real nginx, with notifier's pages, and its clients.

All are under https, of a private authority, on one loopback address; the host's name identifies the client, the path
its answer: `/rp/<behaviour>` is a client's logout URI. `seen` has each request, in order.
"""

import asyncio
import base64
import hashlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.fernet import Fernet, MultiFernet
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from notifier.features.browsers.front_channel_context import seal_context
from notifier.model.front_channel import FrontChannelContext
from notifier.model.record import record
from tests.support.certificates import authority
from tests.support.proxies import proxied
from tests.support.rabbitmq_node import free_ports
from tests.system.site import Site
from tests.system.waiting import until
from tests.system.worker_process import WorkerProcess, worker

OP, UPSTREAM, EVIL = "login.corp.test", "upstream.test", "evil.test"
LOGGED_OUT = """<!doctype html><meta charset=utf-8><link rel=icon href=data:,><title>Signed out</title>
<h1>You have signed out</h1><script>
got = []; loaded = null; const at = () => Math.round(performance.now());
onmessage = ({origin, data}) => got.push([at(), origin, data]);
onload = () => { loaded = at() };
message = () => got.find((each) => each[2].type === 'front-channel-logout');
</script>%s"""


@record
class Seen:
    """A request to a client, or to the identity server's own pages. `how` is its `Sec-Fetch-Dest`."""

    host: str
    path: str
    query: Mapping[str, str]
    how: str
    referer: str
    cookies: tuple[str, ...]


def key_of(pem: Path) -> str:
    """The SHA-256 of a certificate's public key, as Chromium takes it."""
    [certificate, *_] = x509.load_pem_x509_certificates(pem.read_bytes())
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(key).digest()).decode()


class Sites:
    """The clients and the identity server's own pages. Made by `sites`."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.port = self.bad_port = self.op_port = 0
        self.dead_port = free_ports(1)[0]
        self.pem = Path()
        self.web_keys = b""
        self.keys = MultiFernet([Fernet(Fernet.generate_key())])
        self.iss = ""
        self.pages: dict[str, tuple[str, Mapping[str, str]]] = {}
        self.worker: WorkerProcess | None = None
        self.hanging = asyncio.Event()

    # ── addresses ──

    def url(self, name: str, path: str, port: int | None = None) -> str:
        """Of a client's site: `name` is before `.test`, or a whole host."""
        return f"https://{name if '.' in name else f'{name}.test'}:{port or self.port}{path}"

    def seal(self, *clients: str, now: float) -> str:
        """A context of these clients."""
        asked = tuple((each, None) for each in clients)
        return seal_context(FrontChannelContext(iss=self.iss, sid="5F2A", clients=asked), self.keys, now)

    def page_url(self, sealed: str) -> str:
        """Of a page, as the identity server embeds it."""
        return f"{self.iss}/connect/notify/front-channel/{sealed}"

    def framing(
        self,
        url: str,
        *,
        host: str = OP,
        attributes: str = "",
        after: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """A page that frames another; its address."""
        path = f"/page/{len(self.pages)}"
        html = LOGGED_OUT % f"<iframe src='{url}' {attributes or 'width=0 height=0'}></iframe>{after}"
        self.pages[path] = (html, headers or {})
        return f"{self.iss}{path}" if host == OP else self.url(host, path)

    def asked(self, host: str, since: int = 0) -> list[Seen]:
        """Return the requests to one client."""
        return [each for each in self.seen[since:] if each.host == host and each.path.startswith("/rp/")]

    async def until_asked(self, hosts: Sequence[str], since: int = 0) -> None:
        """Wait until each of these clients was asked."""

        async def missing() -> set[str]:
            return {*hosts} - {each.host for each in self.seen[since:] if each.path.startswith("/rp/")}

        await until(missing, lambda names: not names)

    # ── answers ──

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer by the path."""
        host = request.host.partition(":")[0].removesuffix(".test")
        self.seen.append(
            Seen(
                host=host,
                path=request.path,
                query=dict(request.query),
                how=request.headers.get("Sec-Fetch-Dest", ""),
                referer=request.headers.get("Referer", ""),
                cookies=tuple(sorted(request.cookies)),
            )
        )
        if request.path in self.pages:
            html, headers = self.pages[request.path]
            return web.Response(text=html, content_type="text/html", headers=headers)
        if (answer := ANSWERS.get(request.path.removeprefix("/rp/"))) is not None:
            return await answer(self, request)
        return web.Response(text=request.path, content_type="text/html")


def _html(text: str, status: int = 200, **headers: str) -> Callable[[Sites, web.BaseRequest], Awaitable[web.Response]]:
    async def answer(_sites: Sites, _request: web.BaseRequest) -> web.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(text=text, status=status, content_type="text/html", headers=named)

    return answer


async def _elsewhere(sites: Sites, _request: web.BaseRequest) -> web.Response:
    return web.Response(status=302, headers={"Location": sites.url("elsewhere", "/landed")})


async def _to_http(_sites: Sites, request: web.BaseRequest) -> web.Response:
    return web.Response(status=302, headers={"Location": f"http://{request.host}/plain"})


async def _hang(sites: Sites, _request: web.BaseRequest) -> web.Response:
    await sites.hanging.wait()
    return web.Response()


async def _stall(sites: Sites, request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/html"})
    await response.prepare(request)
    await response.write(b"<p>half" + b" " * 2000)
    await sites.hanging.wait()
    return response


async def _slow(_sites: Sites, _request: web.BaseRequest) -> web.Response:
    await asyncio.sleep(1.5)
    return web.Response(text="late", content_type="text/html")


async def _reset(_sites: Sites, request: web.BaseRequest) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


SESSION = {"s_none": "SameSite=None; Secure", "s_lax": "SameSite=Lax; Secure", "s_strict": "SameSite=Strict; Secure"}


def _cookies(text: str, life: str) -> Callable[[Sites, web.BaseRequest], Awaitable[web.Response]]:
    async def answer(_sites: Sites, _request: web.BaseRequest) -> web.Response:
        response = web.Response(text=text, content_type="text/html", headers={"Cache-Control": "no-store"})
        for name, rule in SESSION.items():
            response.headers.add("Set-Cookie", f"{name}=1; Path=/; {life}; {rule}")
        return response

    return answer


async def _whoami(_sites: Sites, request: web.BaseRequest) -> web.Response:
    return web.Response(text=" ".join(sorted(request.cookies)), headers={"Cache-Control": "no-store"})


ANSWERS: Mapping[str, Callable[[Sites, web.BaseRequest], Awaitable[web.StreamResponse]]] = {
    "ok": _html("bye"),
    "error": _html("sorry", 500),
    "nothing": _html("", 204),
    "elsewhere": _elsewhere,
    "to-http": _to_http,
    "unframed": _html("bye", X_Frame_Options="DENY"),
    "own-policy": _html("bye", Content_Security_Policy="frame-ancestors 'none'"),
    "download": _html("bye", Content_Disposition="attachment; filename=x.html"),
    "corp": _html("bye", Cross_Origin_Resource_Policy="same-origin"),
    "cached": _html("bye", Cache_Control="max-age=600"),
    "confirms": _html("<script>parent.postMessage({type: 'logged-out'}, '*')</script>"),
    "lies": _html("<script>parent.postMessage({type: 'logged-out'}, '*')</script>", 404),
    "hang": _hang,
    "stall": _stall,
    "slow": _slow,
    "reset": _reset,
    "sign-in": _cookies("in", "Max-Age=600"),
    "clear": _cookies("out", "Max-Age=0"),
    "whoami": _whoami,
}


@asynccontextmanager
async def sites(
    folder: Path,
    pem: Path,
    clients: Callable[[Sites], Mapping[str, Any]],
    *,
    server: str | None = None,
    upstreams: Callable[[Sites], Mapping[str, Any]] = lambda _: {},
    **of_issuer: object,
) -> AsyncIterator[Sites]:
    """The sites and a worker with these clients (`client_id` → URI, or client metadata), while entered.

    `pem`: their key and certificate. `server`: the address of the identity server behind the proxy, if it is not played
    here.
    """
    made = Sites()
    made.pem = pem
    async with AsyncExitStack() as stack:
        stack.callback(made.hanging.set)
        made.port = await _serve(stack, made, pem)
        made.bad_port = await _serve(stack, made, authority(folder / "strange").issue("*.test"))
        [web_port] = free_ports(1)
        proxy = proxied(
            "nginx", folder / "nginx", pem=pem, notifier=f"http://127.0.0.1:{web_port}",
            other=server or made.url("127.0.0.1", ""),
        )  # fmt: skip
        made.op_port = await stack.enter_async_context(proxy)
        made.iss = made.url(OP, "", made.op_port)
        site = Site(folder, f"sqlite:{folder}/q.db")
        site.add_key(made.iss, "op.pem")
        page = {"url": f"{made.iss}/connect/notify", "parents": [made.url(UPSTREAM, "")], **of_issuer}
        made.web_keys = site.serve_web(web_port, issuers={made.iss: page})
        made.keys = MultiFernet([Fernet(made.web_keys)])
        site.config["upstreams"] = upstreams(made)
        site.write()
        site.write_clients([_metadata(made.iss, client_id, given) for client_id, given in clients(made).items()])
        made.worker = await stack.enter_async_context(worker(site))
        yield made


def _metadata(iss: str, client_id: str, given: Any) -> dict[str, Any]:
    metadata = given if isinstance(given, dict) else {"frontchannel_logout_uri": given}
    return {"client_id": client_id, "issuer": iss, "id_token_signed_response_alg": "ES256", **metadata}


async def _serve(stack: AsyncExitStack, made: Sites, pem: Path) -> int:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    runner = web.ServerRunner(web.Server(made.handle), shutdown_timeout=0.1)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    return int(runner.addresses[0][1])
