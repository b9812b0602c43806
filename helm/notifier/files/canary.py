"""The canary of `helm test`: publishes the logout of a session that does not exist, and receives it as its client.

The event takes the full path: broker, worker, signature, POST. Only the canary uses its issuer, so its token cannot end
a session at any other client. It is published once this pod answers at its Service, where workers reach it.
"""

import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

ISSUER = os.environ["CANARY_ISSUER"]
URL = os.environ["CANARY_URL"]
TIMEOUT = float(os.environ["CANARY_TIMEOUT"])
REACH = float(os.environ.get("CANARY_REACH", "30"))
HOST = os.environ.get("CANARY_HOST", "")
PORT = int(os.environ.get("CANARY_PORT", "8080"))
CONFIG = os.environ["NOTIFIER_CONFIG"]
KUBECTL = os.environ["CANARY_KUBECTL"]
WORKERS = os.environ["CANARY_WORKERS"]
LABELS = os.environ["CANARY_LABELS"]

sid = f"canary-{uuid.uuid4()}"
told = threading.Event()


class Client(BaseHTTPRequestHandler):
    """The canary: a client that is notified of one session."""

    def do_GET(self) -> None:
        """Answer who this is."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(sid.encode())

    def do_POST(self) -> None:
        """Answer 200 to a logout token, and set `told` where it is that of this session."""
        body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
        try:
            [token] = parse_qs(body)["logout_token"]
            payload = token.split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        except (KeyError, ValueError, IndexError):
            self.send_error(400)
            return
        self.send_response(200)
        self.end_headers()
        if claims.get("iss") == ISSUER and claims.get("sid") == sid:
            told.set()

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


def reached() -> str:
    """Wait until this pod answers at its Service. Returns what keeps it from that, or nothing."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    until = time.monotonic() + REACH
    while True:
        try:
            with contextlib.closing(direct.open(URL, timeout=2)) as answer:
                if answer.read() == sid.encode():
                    return ""
                problem = "another pod answers there"
        except OSError as error:
            problem = str(error)
        if time.monotonic() > until:
            return problem
        time.sleep(0.5)


class Server(ThreadingHTTPServer):
    """Listens on IPv4 and IPv6, or on what there is of them: a cluster may have one of the two alone."""

    def server_bind(self) -> None:
        """Replace the socket by one of both families, unless a host is given."""
        both = not HOST and socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else self.address_family
        self.socket.close()
        self.socket = socket.create_server((HOST, PORT), family=family, dualstack_ipv6=both)


server = Server((HOST, PORT), Client)
threading.Thread(target=server.serve_forever, daemon=True).start()
if away := reached():
    # Some networks let no pod reach itself by its Service. Workers may reach it all the same, so the test goes on.
    print(f"this pod did not reach itself at {URL} within {REACH:.0f} s: {away}", flush=True)
began = time.monotonic()
event = {"id": sid, "iss": ISSUER, "sub": "notifier-canary", "sid": sid, "clients": ["notifier-canary"]}
published = subprocess.run(["notifier", "publish", "-c", CONFIG], input=json.dumps(event), text=True, check=False)
if published.returncode:
    sys.exit("the event could not be published; see above")
if not told.wait(TIMEOUT):
    sys.exit(
        f"the event was published, and its logout did not arrive within {TIMEOUT:.0f} s.\n"
        "The workers' log has a line for each attempt, with its reason:\n"
        f"  {KUBECTL} logs -l {LABELS} --tail=-1 --prefix | grep {sid}\n"
        "What a reason means, and what to do:\n"
        f"  {KUBECTL} exec {WORKERS} -- notifier explain REASON\n"
        "If there is no line, no worker took the event. Whether they run, and what is wrong at them:\n"
        f"  {KUBECTL} exec {WORKERS} -- notifier status"
    )
print(f"published, signed and delivered in {time.monotonic() - began:.1f} s")
