"""A receiver to try with: prints the claims of every logout token it gets, verifies nothing, and answers 204."""

import base64
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        claims = form["logout_token"][0].split(".")[1]
        print(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)).decode(), flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


HTTPServer(("127.0.0.1", 9000), Receiver).serve_forever()
