"""Serve the files of the console below `/console/`. They contain no secrets, so no token is required."""

import gzip
import hashlib
from collections.abc import Iterator, Mapping
from importlib import resources

from aiohttp import web
from aiohttp.typedefs import Handler

from notifier.network.listeners.authorization import allow_for_pages

PATH = "/console/"
MEDIA_TYPES: Mapping[str, str] = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "X-Robots-Tag": "noindex",
    "Cache-Control": "no-cache",
    "Vary": "Accept-Encoding",
}


def console_files() -> Iterator[web.RouteDef]:
    """Yield a route for each file, so that no requested path is used as a file path."""
    for entry in sorted(resources.files(__package__).iterdir(), key=lambda entry: entry.name):
        media_type = MEDIA_TYPES.get("." + entry.name.rpartition(".")[2])
        if media_type is not None:
            name = "" if entry.name == "index.html" else entry.name
            yield web.get(PATH + name, _make_handler(entry.read_bytes(), media_type))
    yield web.get("/console", _redirect)


def _make_handler(body: bytes, media_type: str) -> Handler:
    """Return a handler that serves a file, compressed if the browser accepts gzip, and 304 if it has the file."""
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    compressed = gzip.compress(body, mtime=0)

    @allow_for_pages
    async def serve(request: web.Request) -> web.Response:
        headers = {**HEADERS, "ETag": etag}
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers=headers)
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"] = "gzip"
            return web.Response(body=compressed, content_type=media_type, charset="utf-8", headers=headers)
        return web.Response(body=body, content_type=media_type, charset="utf-8", headers=headers)

    return serve


@allow_for_pages
async def _redirect(_request: web.Request) -> web.Response:
    return web.Response(status=308, headers={"Location": PATH, **HEADERS})
