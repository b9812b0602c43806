"""Makes the URL of notifier's front-channel page: `pip install cryptography`, Python 3.9 or newer.

PAGE_KEY=$(head -1 web.keys) python page_url.py https://login.example.com/connect/notify ISS SID CLIENT…
A CLIENT is ID, ID=SID, ID=SID=required=URI or ID=SID=optional=URI.
"""

import json
import os
import sys
import zlib

from cryptography.fernet import Fernet


def page_url(base, key, iss, sid, clients):
    """`base` and `iss` are those of `web.issuers`. A client is its id, or [id, sid] if it knows a sid of its own.

    One that notifier's registry may not have is [id, sid or None, frontchannel_logout_uri, whether it needs a sid], with
    a key of this issuer alone. `sid` may be None. Raises ValueError if there are too many clients for one URL.
    """
    plain = json.dumps([iss, sid, *clients], separators=(",", ":")).encode()
    context = Fernet(key).encrypt(zlib.compress(plain, 9)).decode().rstrip("=")
    if len(context) > 7500:
        raise ValueError("too many clients for one page")
    return f"{base}/front-channel/{context}"


def entry(client):
    parts = client.split("=", 3)
    if len(parts) < 3:
        return parts if len(parts) == 2 else client
    return [parts[0], parts[1] or None, parts[3], parts[2] == "required"]


if __name__ == "__main__":
    base, iss, sid, *clients = sys.argv[1:]
    entries = [entry(client) for client in clients]
    print(page_url(base, os.environ["PAGE_KEY"], iss, sid or None, entries))
