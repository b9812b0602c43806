"""Real programs as sites: a node-oidc-provider that signs out, and mod_auth_openidc and LemonLDAP::NG as its clients.

All are under https, on the hosts of `front_channel_sites`, whose behaviours are further clients of the same session.
"""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from joserfc.jwk import RSAKey
from playwright.async_api import Page

from notifier.model.record import record
from publishers.tests.oidc_provider.installed import NODE, npm_folder
from tests.browsers.debian_browsers import until
from tests.browsers.front_channel_sites import LOGGED_OUT, Sites, sites
from tests.receivers_of_the_world.lemonldap import Portal, lemonldap
from tests.receivers_of_the_world.mod_auth_openidc import PAGE, mod_auth_openidc
from tests.support.rabbitmq_node import free_ports
from tests.system.site import API_TOKEN
from tests.system.waiting import until as until_result

HERE = Path(__file__).parent
PAGE_URL = HERE.parents[1] / "docs/examples/page_url.mjs"
SECRET = "s" * 40
INTRANET, PORTAL = "intranet.test", "portal.test"
APACHE = """LoadModule socache_shmcb_module modules/mod_socache_shmcb.so
LoadModule ssl_module modules/mod_ssl.so
SSLEngine on
SSLCertificateFile {pem}
OIDCProviderIssuer {iss}
OIDCProviderAuthorizationEndpoint {iss}/auth
OIDCProviderTokenEndpoint {behind}/token
OIDCProviderJwksUri {behind}/jwks
OIDCSSLValidateServer Off
OIDCClientID intranet
OIDCClientSecret {secret}
OIDCRedirectURI {url}/protected/callback
"""


@record
class RealSites:
    """What runs. `portal` is LemonLDAP::NG; `intranet` is where mod_auth_openidc protects a page."""

    harness: Sites
    portal: Portal
    intranet: str
    portal_url: str

    async def sign_in(self, page: Page) -> None:
        """At the identity server by its own form, at the second client without being asked."""
        await page.goto(f"{self.intranet}/protected/index.html")
        await fill_in(page, {"login": "alice", "password": "x"})
        await page.goto(self.portal_url)
        await until_result(self._portal_sessions, lambda found: found == 1)

    async def sign_out(self, page: Page) -> dict[str, str]:
        """Sign out by the identity server's own pages; return the page's result for each client."""
        await page.goto(f"{self.harness.iss}/session/end")
        await page.click("button[value=yes]")
        report = await until(page, "typeof message == 'function' && message()")
        return {client["id"]: client["result"] for client in report[2]["clients"]}

    async def signed_in(self, page: Page) -> dict[str, bool]:
        """What each client has of the session now: mod_auth_openidc by the browser, LemonLDAP::NG in its store."""
        await page.goto(f"{self.intranet}/protected/index.html")
        seen = await until(page, "document.body?.innerText")
        return {"intranet": PAGE in seen, "portal": await self._portal_sessions() == 1}

    async def _portal_sessions(self) -> int:
        """Those of users. It keeps its own states there, too."""
        return await asyncio.to_thread(self._count)

    def _count(self) -> int:
        files = (self.portal.home / "sessions").iterdir()
        return sum('"_oidc_sid"' in file.read_text(errors="replace") for file in files)


async def fill_in(page: Page, fields: Mapping[str, str]) -> None:
    """Sign in by a form, which leads to the page that mod_auth_openidc protects."""
    for name, value in fields.items():
        await page.fill(f"input[name={name}]", value)
    await page.press("input[name=password]", "Enter")
    await page.get_by_text(PAGE).wait_for()


@asynccontextmanager
async def real_sites(folder: Path, pem: Path, *, own_url: bool = False, limit: str) -> AsyncIterator[RealSites]:
    """The sites, while entered. `own_url`: the identity server makes the page's address itself."""
    behind, apache, portal_tls = free_ports(3)
    intranet, portal_url = f"https://{INTRANET}:{apache}", f"https://{PORTAL}:{portal_tls}"

    def clients(harness: Sites) -> Mapping[str, Any]:
        return {
            "intranet": f"{intranet}/protected/callback?logout=get", "portal": f"{portal_url}/oauth2/flogout",
            **others(harness),
        }  # fmt: skip

    server = f"http://127.0.0.1:{behind}"
    async with AsyncExitStack() as stack:
        harness = await stack.enter_async_context(sites(folder, pem, clients, server=server, limit=limit))
        assert harness.worker is not None
        key = RSAKey.generate_key(2048, {"kid": "r1", "use": "sig", "alg": "RS256"})
        uris = {"intranet": f"{intranet}/protected/callback", "portal": f"{portal_url}/?openidconnectcallback=1"}
        sign_outs: dict[str, Any] = {"base": f"{harness.iss}/connect/notify", "key": harness.web_keys.decode()}
        sign_outs["module"] = PAGE_URL.as_uri()
        if not own_url:
            api = await harness.worker.until_logged("listening", lambda line: "api" in line)
            sign_outs = {"api": api["api"], "token": API_TOKEN}
        settings = {
            "port": behind, "issuer": harness.iss, "sign_outs": sign_outs, "also": [*others(harness)],
            "template": LOGGED_OUT, "clients": [registered(name, uri) for name, uri in uris.items()],
            "jwks": {"keys": [key.as_dict(private=True)]},
        }  # fmt: skip
        await stack.enter_async_context(signed_out_server(folder / "op", settings))
        stack.enter_context(intranet_of(harness, apache))
        (folder / "portal").mkdir()
        jwks = {"keys": [key.as_dict(private=False)]}
        more = portal_settings(portal_url, harness.iss, server)
        portal = stack.enter_context(lemonldap(folder / "portal", harness.iss, "portal", jwks, more))
        await stack.enter_async_context(_tls(harness.pem, portal_tls, portal.port))
        yield RealSites(harness=harness, portal=portal, intranet=intranet, portal_url=portal_url)


def intranet_of(harness: Sites, port: int) -> AbstractContextManager[None]:
    """mod_auth_openidc at INTRANET, a client of this world's identity server."""
    beside = f"https://127.0.0.1:{harness.op_port}"  # its library knows no names of ours, and wants TLS
    url = f"https://{INTRANET}:{port}"
    own = APACHE.format(iss=harness.iss, behind=beside, pem=harness.pem, secret=SECRET, url=url)
    return mod_auth_openidc(port, own, INTRANET)


def others(harness: Sites) -> Mapping[str, Any]:
    """Return the fake clients of the session, with their answers."""
    kinds = ("nothing", "error", "elsewhere", "unframed", "stall", "hang")
    cookies = {
        "subdomain": harness.url("app.corp.test", "/rp/clear"),
        "elsewhere-cookie": harness.url("app", "/rp/clear"),
    }
    gone = {
        "dead": harness.url("dead", "/rp/ok", harness.dead_port),
        "bad": harness.url("bad", "/rp/ok", harness.bad_port),
    }
    return {**{kind: harness.url(kind, f"/rp/{kind}") for kind in kinds}, **cookies, **gone}


def registered(client_id: str, redirect_uri: str) -> dict[str, Any]:
    """At node-oidc-provider, which gives a `sid` to those alone that have a back-channel URI. Nobody listens there."""
    return {
        "client_id": client_id, "client_secret": SECRET, "redirect_uris": [redirect_uri],
        "backchannel_logout_uri": "http://127.0.0.1:1/", "backchannel_logout_session_required": True,
    }  # fmt: skip


def portal_settings(url: str, iss: str, behind: str) -> dict[str, Any]:
    """LemonLDAP::NG's own."""
    ends = {"authorization_endpoint": f"{iss}/auth", "token_endpoint": f"{behind}/token"}
    metadata = {"issuer": iss, "jwks_uri": f"{behind}/jwks", "userinfo_endpoint": f"{behind}/me", **ends}
    options = {
        "oidcOPMetaDataOptionsClientID": "portal", "oidcOPMetaDataOptionsClientSecret": SECRET,
        "oidcOPMetaDataOptionsCheckJWTSignature": 1, "oidcOPMetaDataOptionsIDTokenMaxAge": 30,
        "oidcOPMetaDataOptionsScope": "openid", "oidcOPMetaDataOptionsTokenEndpointAuthMethod": "client_secret_basic",
    }  # fmt: skip
    return {
        "portal": f"{url}/", "domain": PORTAL, "securedCookie": 1,
        "oidcOPMetaDataJSON": {"op": json.dumps(metadata)}, "oidcOPMetaDataOptions": {"op": options},
    }  # fmt: skip


@asynccontextmanager
async def signed_out_server(folder: Path, settings: Mapping[str, Any]) -> AsyncIterator[None]:
    """The identity server, while entered."""
    modules = await asyncio.to_thread(npm_folder)
    await asyncio.to_thread(_written, folder, modules, settings)
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            str(NODE), str(folder / "server.mjs"), str(folder / "settings.json"),
            stdout=asyncio.subprocess.PIPE, stderr=log,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"listening\n", (folder / "log").read_text()[-3000:]
        yield
    except BaseException as error:
        error.add_note(f"the identity server's log ends: {(folder / 'log').read_text()[-3000:]}")
        raise
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _written(folder: Path, modules: Path, settings: Mapping[str, Any]) -> None:
    folder.mkdir()
    (folder / "node_modules").symlink_to(modules / "node_modules")
    (folder / "server.mjs").write_bytes((HERE / "signed_out_server.mjs").read_bytes())
    (folder / "settings.json").write_text(json.dumps(settings))


@asynccontextmanager
async def _tls(pem: Path, port: int, behind: int) -> AsyncIterator[None]:
    """TLS in front of a port that has none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", behind)
        await asyncio.gather(_copy(reader, back), _copy(there, writer), return_exceptions=True)

    server = await asyncio.start_server(join, "127.0.0.1", port, ssl=context)
    try:
        yield
    finally:
        server.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
