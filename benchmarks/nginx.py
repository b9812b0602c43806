"""A private nginx that plays all receivers: 200 to everything, counted, and one token in a hundred kept to be verified.

It ends with us, listens on loopback alone, and leaves nothing behind. Debian's package; installed by apt where we may.
"""

import contextlib
import re
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs

import aiohttp
from aiohttp import web

from tests.support.certificates import authority
from tests.support.proxies import nginx_command, running
from tests.support.rabbitmq_node import free_ports
from tests.system.loopback import LoopbackServer

CONFIGURATION = """
daemon off; master_process off; worker_rlimit_nofile 4096; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 2048; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 600s;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  split_clients "$request_id" $sampled {{ 1% 1; * 0; }}
  server {{
    listen 127.0.0.1:{plain} backlog=4096;
    listen 127.0.0.1:{tls} ssl backlog=4096;
    ssl_certificate {pem}; ssl_certificate_key {pem};
    location = /count {{ stub_status; }}
    location / {{
      if ($sampled) {{ proxy_pass http://127.0.0.1:{sampler}; break; }}
      return 200;
    }}
  }}
}}
"""


class Nginx:
    """`tokens` are those of the sample, each with the moment it came. Made by `nginx`."""

    def __init__(self, plain: int, tls: int, ca: Path, tokens: list[tuple[str, str, float]]) -> None:
        self.plain = plain
        self.tls = tls
        self.ca = ca
        self.tokens = tokens
        self._asked = 0

    def url(self, name: str, *, tls: bool) -> str:
        """The `backchannel_logout_uri` of a client."""
        return f"https://127.0.0.1:{self.tls}/{name}" if tls else f"http://127.0.0.1:{self.plain}/{name}"

    async def count(self, session: aiohttp.ClientSession) -> int:
        """Return the number of requests, without those for the count."""
        self._asked += 1
        async with session.get(f"http://127.0.0.1:{self.plain}/count") as response:
            found = re.search(r"\n (\d+) (\d+) (\d+) ", await response.text())
        assert found is not None
        return int(found[3]) - self._asked


@contextlib.asynccontextmanager
async def nginx() -> AsyncIterator[Nginx]:
    """Run an nginx on the cores that this process has."""
    tokens: list[tuple[str, str, float]] = []

    async def keep(request: web.BaseRequest) -> web.Response:
        form = parse_qs((await request.read()).decode())
        tokens.append((request.path.removeprefix("/"), form.get("logout_token", [""])[0], time.time()))
        return web.Response()

    async with LoopbackServer(keep) as sampler:
        with tempfile.TemporaryDirectory(prefix="notifier-nginx-") as name:
            folder = Path(name)
            ca = authority(folder)
            plain, tls = free_ports(2)
            text = CONFIGURATION.format(
                folder=folder, plain=plain, tls=tls, sampler=sampler.port, pem=ca.issue("localhost", "127.0.0.1")
            )
            (folder / "nginx.conf").write_text(text)
            async with running(nginx_command(folder, folder / "nginx.conf"), folder, plain):
                yield Nginx(plain, tls, ca.ca_file, tokens)
