"""Render the front-channel page, by which the user's browser requests each client, and its security headers.

The script and the style are files in this folder. They are the same on all pages, so that the Content-Security-Policy
permits them by hash. Variable parts are in a JSON block, to which the policy does not apply, and in attributes.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from urllib.parse import urlsplit

from notifier.features.browsers.web_settings import WebIssuerSettings
from notifier.model.front_channel import AskedClient, PagePlan

_SANDBOX = "allow-scripts allow-same-origin allow-forms"
"""A client's frame keeps its origin and its cookies. It may neither navigate the top-level page nor download."""
MAX_FRAMES = 25  # a browser may start a process for each
_STATUS = '<main id="status" role="status"><p>Signing you out of your applications…</p></main>\n'


class FrontChannelPage:
    """Renders pages and their headers."""

    def __init__(self) -> None:
        self.script = _read_resource("front_channel_page.js")
        self.style = _read_resource("front_channel_page.css")
        self._policy_of_files = f"script-src {_hash_of(self.script)}; style-src {_hash_of(self.style)}"

    def headers(self, origins: Sequence[str], asked: Iterable[AskedClient] = ()) -> dict[str, str]:
        """Return the headers of a page that requests the clients `asked`. Only `origins` may frame it.

        `frame-src` lists schemes instead of clients: a list would block a client's redirect to another origin, and
        would exceed the header buffers of proxies. The frames' addresses come from a sealed context.
        """
        has_http_client = any(urlsplit(client.uri).scheme == "http" for client in asked)
        schemes = "https: http:" if has_http_client else "https:"
        ancestors = " ".join(origins) if origins else "'none'"
        policy = (
            f"default-src 'none'; {self._policy_of_files}; frame-src {schemes}; connect-src 'self' {schemes};"
            f" base-uri 'none'; form-action 'none'; frame-ancestors {ancestors}"
        )
        return {
            "Content-Security-Policy": policy,
            "Cache-Control": "no-store",
            "Referrer-Policy": "strict-origin",  # without the path, which contains the context
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "cross-origin",
            "X-Robots-Tag": "noindex",
        }

    def render(self, plan: PagePlan, settings: WebIssuerSettings, report: str | None) -> str:
        """Return the page as HTML. Its script sends the results to the path `report`; without a path it sends none.

        The script requests all clients by fetch. A browser without scripts requests them by their frames only, so that
        it loads also the frames beyond MAX_FRAMES.
        """
        show_names = settings.show_names
        content = {
            "limit": round(settings.limit * 1000),
            "report": report,
            "parents": settings.origins,
            "clients": [
                {**_to_client_entry(client.client_id, client.name, show_names), "uri": client.uri}
                for client in plan.asked
            ],
            "unasked": [_to_client_entry(client.client_id, client.name, show_names) for client in plan.unasked],
        }
        frames = [_render_frame(nth, client.uri) for nth, client in enumerate(plan.asked)]
        body = "\n".join(frames[:MAX_FRAMES])
        if len(frames) > MAX_FRAMES:
            body += "\n<noscript>\n" + "\n".join(frames[MAX_FRAMES:]) + "\n</noscript>"
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Signing out</title>\n'
            '<meta name="viewport" content="width=device-width">\n'
            f"<style>{self.style}</style>\n"
            f'<script type="application/json" id="plan">{_format_json_block(content)}</script>\n'
            f"<script>{self.script}</script></head>\n"  # before the frames, so that its requests come first
            f"<body>\n{_STATUS if show_names else ''}{body}\n</body></html>\n"
        )


def _to_client_entry(client_id: str, name: str, show_names: bool) -> dict[str, str]:  # noqa: FBT001
    return {"id": client_id, "name": name} if show_names else {"id": client_id}


def _render_frame(nth: int, uri: str) -> str:
    return f'<iframe data-n="{nth}" src="{escape(uri)}" sandbox="{_SANDBOX}" allow=""></iframe>'


def _format_json_block(value: object) -> str:
    """Return JSON for a script element. An escaped `<` can neither end the element nor open a comment."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _read_resource(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def _hash_of(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
