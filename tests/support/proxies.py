"""Real proxies in front of an identity server, configured as in docs/front-channel.md: nginx and Apache.

They listen on loopback with TLS, end with the test process and remove their files. Installed from Debian by apt if
permitted.
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
daemon off; {processes} pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  {http}
}}
"""
_SERVER = """
server {{
  listen 127.0.0.1:{port} ssl; ssl_certificate {pem}; ssl_certificate_key {pem};
  {block}
  location / {{
    proxy_pass {other}; proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto https;
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
    """Return the first block of this language in a document."""
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
    """Start a documented proxy of this kind and return its port on 127.0.0.1. Requests outside our path go to `other`.

    `instead`: replacements for parts of the documented text. `block`: another block than that of docs/front-channel.md.
    """
    [port] = free_ports(1)
    block = block or documented(kind)
    for text, other_words in instead.items():
        assert text in block
        block = block.replace(text, other_words)
    block = block.replace("http://notifier:8090", notifier)
    assert notifier in block
    values = {"folder": folder, "port": port, "pem": pem, "block": block, "other": other}
    command = await asyncio.to_thread(_written, kind, folder, values)
    async with running(command, folder, port):
        yield port


def _written(kind: str, folder: Path, values: Mapping[str, object]) -> list[str]:
    """Write the configuration; return the command that uses it."""
    if kind == "nginx":
        return write_nginx(folder, _SERVER.format(**values))
    folder.mkdir()
    file = folder / "apache.conf"
    file.write_text(_APACHE.format(modules="/usr/lib/apache2/modules", **values))
    return [program("apache2", "apache2", "/usr/sbin"), "-f", str(file), "-DFOREGROUND"]


def write_nginx(folder: Path, http: str, *, reloads: bool = False) -> list[str]:
    """Make the folder, and write nginx's configuration with these blocks; return the command that uses it.

    `reloads`: it can read the file again (SIGHUP), which one process alone cannot.
    """
    folder.mkdir()
    file = folder / "nginx.conf"
    processes = "user root; worker_processes 1;" if reloads else "master_process off;"
    file.write_text(_NGINX.format(folder=folder, http=http, processes=processes))
    return nginx_command(folder, file)


def nginx_command(folder: Path, file: Path) -> list[str]:
    """Return the command that runs nginx with this file."""
    nginx = program("nginx", "nginx-light", "/usr/sbin")
    return [nginx, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(file)]


@asynccontextmanager
async def running(command: Sequence[str], folder: Path, port: int) -> AsyncIterator[None]:
    """Run a server that ends with this process, and wait until its port answers."""
    process = await asyncio.to_thread(
        lambda: subprocess.Popen(command, start_new_session=True, cwd=folder, stderr=(folder / "stderr").open("wb"))
    )
    guard = await asyncio.to_thread(_guard, process.pid)
    try:
        await until(lambda: answers(port), bool)
        yield
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)
        guard.kill()
        await asyncio.to_thread(guard.communicate)


async def answers(port: int) -> bool:
    """Return whether a server listens at this port of loopback."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
