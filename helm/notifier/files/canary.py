"""What `helm test` runs: publishes the logout of a session that does not exist, and is the client that is told of it.

The event goes the whole way: broker, worker, signature, POST. Its issuer is the canary's own, so that its token could
end no session at any other client.
"""

import base64
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

ISSUER = os.environ["CANARY_ISSUER"]
TIMEOUT = float(os.environ.get("CANARY_TIMEOUT", "60"))
HOST = os.environ.get("CANARY_HOST", "")
PORT = int(os.environ.get("CANARY_PORT", "8080"))
CONFIG = os.environ.get("NOTIFIER_CONFIG", "/etc/notifier/config/notifier.yaml")
LOGS = os.environ.get("CANARY_LOGS", "kubectl logs -l app.kubernetes.io/name=notifier --tail=-1 --prefix")

sid = f"canary-{uuid.uuid4()}"
told = threading.Event()


class Client(BaseHTTPRequestHandler):
    """The canary: a client that is told of one session."""

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


server = ThreadingHTTPServer((HOST, PORT), Client)
threading.Thread(target=server.serve_forever, daemon=True).start()
began = time.monotonic()
event = {"id": sid, "iss": ISSUER, "sub": "notifier-canary", "sid": sid, "clients": ["notifier-canary"]}
published = subprocess.run(["notifier", "publish", "-c", CONFIG], input=json.dumps(event), text=True, check=False)
if published.returncode:
    sys.exit("the event could not be published; see above")
if not told.wait(TIMEOUT):
    sys.exit(
        f"the event was published, and its logout was not delivered within {TIMEOUT:.0f} s."
        " The workers' log has a line for each attempt:"
        f" {LOGS} | grep {sid}"
    )
print(f"published, signed and delivered in {time.monotonic() - began:.1f} s")
