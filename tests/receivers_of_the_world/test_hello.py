"""Hellō's package takes the commands that the stand-in of tests/features/channels takes, and refuses the same.

The worker delivers to it, too. Its issuer listens at a fixed port, so these tests do not run beside one another.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from notifier.model.client import Algorithm
from tests.features.channels.receiver_harness import results, rsa_keys, worker_with
from tests.features.channels.receivers.fake_issuer import FakeIssuer
from tests.features.channels.receivers.posting import post_text
from tests.features.channels.receivers.signing import COMMAND_TYPE, command_claims, jwks, sign
from tests.receivers_of_the_world.hello_receiver import CLIENT, ISSUER, ISSUER_PORT, HelloReceiver, hello_receiver
from tests.system.site import Site

pytestmark = pytest.mark.timeout(300)  # the first run installs the package


async def sent(receiver: HelloReceiver, name: str = "", **claims: Any) -> tuple[int, Any]:
    """POST a command token; status and answer."""
    whole = command_claims(receiver.url, iss=ISSUER, client_id=CLIENT) | claims
    token = sign(whole, COMMAND_TYPE, name=name)
    status, text = await post_text(receiver.url, f"command_token={token}", "application/x-www-form-urlencoded")
    return status, json.loads(text)


async def test_hello_answers_as_the_stand_in() -> None:
    """The unverifiable is 400, an unknown user 409; a failed introspection is 400, too."""
    async with FakeIssuer(jwks, port=ISSUER_PORT) as issuer, hello_receiver("alice") as receiver:
        assert (await sent(receiver))[0] == 200
        assert (await receiver.next_ended())["sub"] == "alice"
        refused = (400, {"error": "invalid_request", "error_description": "invalid command token"})
        assert await sent(receiver, name="another key") == refused
        assert await sent(receiver, client_id="else") == refused
        assert await sent(receiver, iss="https://else.example.com") == refused
        status, answer = await sent(receiver, sub="nobody")
        assert (status, answer["error"]) == (409, "incompatible_state")
        issuer.unavailable = True
        assert await sent(receiver) == refused


async def test_hello_as_published_supports_metadata_alone() -> None:
    """Version 2.5.2 ignores a `commandHandler`, so it answers `unsupported_command` to an invalidation."""
    async with FakeIssuer(jwks, port=ISSUER_PORT), hello_receiver() as receiver:
        assert await sent(receiver) == (400, {"error": "unsupported_command"})
        status, answer = await sent(receiver, command="metadata")
        assert (status, answer["commands_supported"]) == (200, ["metadata"])


async def test_worker_invalidates_accounts_at_hello(tmp_path: Path) -> None:
    """Delivered: an active account, and an unknown one (409). With the keys away, it is tried again; then delivered."""
    site = Site(tmp_path, f"sqlite:{tmp_path / 'q.db'}")
    site.add_key(ISSUER, "rsa.pem", Algorithm.RS256)
    site.write()
    async with FakeIssuer(lambda: rsa_keys(site, ISSUER), port=ISSUER_PORT) as issuer, hello_receiver("alice") as hello:
        channel = {"command": {"uri": hello.url, "tenant": "acme"}}
        row = {"client_id": CLIENT, "issuer": ISSUER, "notifier": {"channel": channel}}
        async with worker_with(site, [row]) as running:
            event = {"iss": ISSUER, "sub": "alice", "clients": [CLIENT]}
            assert (await results(running, event))[CLIENT]["fate"] == "delivered"
            ended = await hello.next_ended()
            assert (ended["sub"], ended["command"], ended["tenant"]) == ("alice", "invalidate", "acme")
            assert (await results(running, event | {"sub": "nobody"}))[CLIENT]["fate"] == "delivered"
            skipped = (await results(running, event | {"sid": "s1"}))[CLIENT]
            assert skipped["fate"] == "skipped"
            issuer.unavailable = True
            assert (await running.post(event))[0] == 202
            await running.until_logged("attempt", lambda line: line["reason"] == "rejected_token")
            issuer.unavailable = False
            assert (await hello.next_ended())["sub"] == "alice"


async def test_worker_gets_a_dead_letter_from_hello_as_published(tmp_path: Path) -> None:
    """`unsupported_command` is final."""
    site = Site(tmp_path, f"sqlite:{tmp_path / 'q.db'}")
    site.add_key(ISSUER, "rsa.pem", Algorithm.RS256)
    site.write()
    async with FakeIssuer(lambda: rsa_keys(site, ISSUER), port=ISSUER_PORT), hello_receiver() as hello:
        channel = {"command": {"uri": hello.url, "tenant": "acme"}}
        row = {"client_id": CLIENT, "issuer": ISSUER, "notifier": {"channel": channel}}
        async with worker_with(site, [row]) as running:
            found = await results(running, {"iss": ISSUER, "sub": "alice", "clients": [CLIENT]})
            assert (found[CLIENT]["fate"], found[CLIENT]["reason"]) == ("dead", "refused")
