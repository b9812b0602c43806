"""Real proxies of an identity server's origin, as docs/front-channel.md sets them up: nginx, and Apache.

They listen on loopback with TLS, end with us, and leave nothing behind. Debian's packages, installed by apt where we
may.
"""

import asyncio
import re
import subprocess
import textwrap
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType

from tests.support.apt_programs import program
from tests.support.rabbitmq_node import _guard, free_ports
from tests.system.waiting import until

ROOT = Path(__file__).parents[2]
_NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port} ssl; ssl_certificate {pem}; ssl_certificate_key {pem};
    {block}
    location / {{
      proxy_pass {other}; proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto https;
    }}
  }}
}}
"""
_APACHE = """
ServerRoot {folder}
ServerName localhost
PidFile {folder}/pid
ErrorLog {folder}/error.log
DefaultRuntimeDir {folder}
User daemon
Group daemon
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule headers_module {modules}/mod_headers.so
LoadModule proxy_module {modules}/mod_proxy.so
LoadModule proxy_http_module {modules}/mod_proxy_http.so
LoadModule ssl_module {modules}/mod_ssl.so
LoadModule socache_shmcb_module {modules}/mod_socache_shmcb.so
Listen 127.0.0.1:{port}
SSLEngine on
SSLCertificateFile {pem}
SSLCertificateKeyFile {pem}
{block}
ProxyPass "/" "{other}/"
"""


def documented(language: str, page: str = "docs/front-channel.md") -> str:
    """The first block of this language in a document."""
    found = re.search(rf"^ *```{language}\n(.*?)^ *```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None, f"{page} has no block of {language}"
    return textwrap.dedent(found[1])


@asynccontextmanager
async def proxied(
    kind: str,
    folder: Path,
    *,
    pem: Path,
    notifier: str,
    other: str,
    instead: Mapping[str, str] = MappingProxyType({}),
    block: str | None = None,
) -> AsyncIterator[int]:
    """The proxy of this kind, set up as the documents say; its port on 127.0.0.1. All but our part goes to `other`.

    `instead`: what stands there in place of what the documents say. `block`: another one than docs/front-channel.md's.
    """
    [port] = free_ports(1)
    block = block or documented(kind)
    for said, other_words in instead.items():
        assert said in block
        block = block.replace(said, other_words)
    block = block.replace("http://notifier:8090", notifier)
    assert notifier in block
    values = {"folder": folder, "port": port, "pem": pem, "block": block, "other": other}
    command = await asyncio.to_thread(_written, kind, folder, values)
    async with running(command, folder, port):
        yield port


def _written(kind: str, folder: Path, values: Mapping[str, object]) -> list[str]:
    """Write the configuration; the command that runs by it."""
    folder.mkdir()
    file = folder / f"{kind}.conf"
    whole = _NGINX if kind == "nginx" else _APACHE
    file.write_text(whole.format(modules="/usr/lib/apache2/modules", **values))
    if kind == "nginx":
        return nginx_command(folder, file)
    return [program("apache2", "apache2", "/usr/sbin"), "-f", str(file), "-DFOREGROUND"]


def nginx_command(folder: Path, file: Path) -> list[str]:
    """The command that runs nginx by this file."""
    nginx = program("nginx", "nginx-light", "/usr/sbin")
    return [nginx, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(file)]


@asynccontextmanager
async def running(command: Sequence[str], folder: Path, port: int) -> AsyncIterator[None]:
    """Run a server that ends with us, once it answers at its port."""
    process = await asyncio.to_thread(
        lambda: subprocess.Popen(command, start_new_session=True, cwd=folder, stderr=(folder / "stderr").open("wb"))
    )
    guard = await asyncio.to_thread(_guard, process.pid)
    try:
        await until(lambda: _answers(port), bool)
        yield
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)
        guard.kill()
        await asyncio.to_thread(guard.communicate)


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
