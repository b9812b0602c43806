"""Starts one worker, an issuer and stand-ins for receivers, for tests of channels from the event to the receiver."""

import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from notifier.model.client import Algorithm
from tests.features.channels.receivers.fake_command_receiver import FakeCommandReceiver
from tests.features.channels.receivers.fake_event_receiver import CAEP_DEV_FORMATS, EVENT_RULES, FakeEventReceiver
from tests.features.channels.receivers.fake_issuer import FakeIssuer, KeySet, PublishedKeys
from tests.features.channels.receivers.fake_receiver import FakeReceiver
from tests.features.channels.receivers.fake_revocation_receiver import REVOCATION_RULES, FakeRevocationReceiver
from tests.features.channels.receivers.fake_token_endpoint import FakeTokenEndpoint
from tests.features.channels.receivers.schemas import validate
from tests.features.channels.receivers.verification import verify_signature
from tests.system.site import ISSUER, Site
from tests.system.waiting import until
from tests.system.worker_process import WorkerProcess, worker

EMAIL = "alice@example.com"
TENANT = "acme"
AUDIENCE = "https://receiver.example.com"
KEYCLOAK_SECRET, WORKSHOP_KEY, TOKEN_SECRET = "Bearer stream-secret", "workshop-api-key", "token-endpoint-secret-4711"


def channel_site(folder: Path, *, iss: str = ISSUER) -> Site:
    """Return an installation with an RSA key of the issuer, which permits addresses and emails in events."""
    site = Site(folder, f"sqlite:{folder / 'q.db'}")
    site.add_key(iss, "rsa.pem", Algorithm.RS256)
    site.config["registry"] |= {"inline": "allow"}
    for name, secret in (
        ("keycloak", KEYCLOAK_SECRET), ("workshop", f"Bearer {WORKSHOP_KEY}"), ("token-secret", TOKEN_SECRET),
    ):  # fmt: skip
        (folder / name).write_text(secret)
        (folder / name).chmod(0o600)
    site.write()
    return site


def rsa_keys(site: Site, iss: str = ISSUER) -> KeySet:
    """Return the issuer's RSA keys, each with its `alg`."""
    return {"keys": [{**key, "alg": "RS256"} for key in site.jwks(iss)["keys"] if key["kty"] == "RSA"]}


class Receivers:
    """The stand-ins of one test, each for the client of its name. `close` comes with the exit stack."""

    def __init__(self, issuer: FakeIssuer, stack: contextlib.AsyncExitStack) -> None:
        self.issuer = issuer
        self.tokens = FakeTokenEndpoint("notifier", TOKEN_SECRET)
        self.by_name: dict[str, FakeReceiver] = {}
        self._stack = stack

    async def start(self, kind: str, name: str, *, client_id: str = "", iss: str = ISSUER) -> Any:
        """Start a stand-in of that kind (`command`, or a row of the rules), which knows alice, and return it.

        `client_id`: the client that its tokens are for, if it is a follower's.
        """
        receiver: FakeReceiver
        client_id = client_id or name
        if kind == "command":
            receiver = FakeCommandReceiver(
                PublishedKeys(self.issuer), iss=iss, client_id=client_id, tenant=TENANT, users={"alice"}
            )
        elif kind in EVENT_RULES:
            events = EVENT_RULES[kind]
            keys = PublishedKeys(self.issuer, cached=events.cached_keys)
            receiver = FakeEventReceiver(events, keys, iss=iss, audience=AUDIENCE)
        else:
            rules = REVOCATION_RULES[kind]
            receiver = FakeRevocationReceiver(
                rules, PublishedKeys(self.issuer, cached=rules.cached_keys), iss=iss, client_id=client_id,
                users={"alice", EMAIL}, api_key=WORKSHOP_KEY, scope_of=self.tokens.scope_of,
            )  # fmt: skip
        await self._stack.enter_async_context(receiver)
        self.by_name[name] = receiver
        return receiver

    def client(self, kind: str, name: str, follows: str | None = None, **changes: Any) -> dict[str, Any]:
        """Return the registration that this stand-in needs; `changes` are settings of its channel."""
        receiver, notifier = self.by_name[name], dict[str, Any]()
        settings: dict[str, Any] = {"uri": receiver.url}
        proof = {
            "endpoint": self.tokens.url, "client_id": "notifier", "client_secret": {"file": "token-secret"},
        }  # fmt: skip
        if kind in EVENT_RULES:
            section, settings["audience"] = "security_event", AUDIENCE
        elif kind == "command":
            section, settings["tenant"] = "command", TENANT
        else:
            section = "global_token_revocation"
        match kind:
            case "okta_workshop":
                settings |= {"subject": "email", "proof": "headers"}
                notifier["headers"] = {"Authorization": {"file": "workshop"}}
            case "okta_org" | "janssen":
                settings |= {"preset": kind, "proof": proof}
            case "auth0" | "caep_dev" | "google_workspace":
                settings["preset"] = kind
            case "keycloak":
                notifier["headers"] = {"Authorization": {"file": "keycloak"}}
        notifier["channel"] = {section: settings | changes}
        row = {"client_id": name, "issuer": ISSUER, "id_token_signed_response_alg": "RS256", "notifier": notifier}
        return row if follows is None else row | {"notifier": notifier | {"follows": follows}}


@contextlib.asynccontextmanager
async def receivers_of(site: Site) -> AsyncIterator[Receivers]:
    """Run the issuer's public side and a token endpoint; the stand-ins are started by the test."""
    async with contextlib.AsyncExitStack() as stack:
        issuer = await stack.enter_async_context(FakeIssuer(lambda: rsa_keys(site), ISSUER))
        receivers = Receivers(issuer, stack)
        await stack.enter_async_context(receivers.tokens)
        yield receivers


@contextlib.asynccontextmanager
async def worker_with(site: Site, clients: Sequence[Mapping[str, object]]) -> AsyncIterator[WorkerProcess]:
    """Run a worker with these registrations."""
    site.write_clients(clients)
    async with worker(site) as running:
        yield running


def event(names: Sequence[str] | str, *, sub: str = "alice", **more: object) -> dict[str, object]:
    """Return an event of the whole user; `sid` makes it one of a session."""
    return {"iss": ISSUER, "sub": sub, "email": EMAIL, "clients": names, **more}


async def publish(running: WorkerProcess, document: Mapping[str, object]) -> None:
    """Publish, without waiting for results."""
    status, answer = await running.post(document)
    assert status == 202, answer


async def results(running: WorkerProcess, document: Mapping[str, object]) -> dict[str, dict[str, Any]]:
    """Publish, wait for the final result of each client, and return it by client."""
    status, answer = await running.ask("POST", "/v1/events?wait=30s", body=document)
    assert status == 200, answer
    return {each["client_id"]: each for each in answer["clients"]}


async def dead_letter(running: WorkerProcess, name: str) -> dict[str, Any]:
    """Wait for the log line of the client's dead letter, and return it."""
    return await running.until_logged("dead_letter", lambda line: line.get("client_id") == name)


async def until_delivered(running: WorkerProcess, count: int) -> None:
    """Wait until this many deliveries have succeeded."""
    await until(lambda: running.metric("deliveries_settled_total", fate="delivered"), lambda value: value == count)


def check_messages(site: Site, receiver: FakeReceiver) -> list[str]:
    """Validate all that a receiver got against the schemas; return the `jti` of each token."""
    jtis = []
    for request in receiver.requests:
        body, proof = request.body.decode(), request.headers.get("Authorization", "").removeprefix("Bearer ")
        if request.content_type.startswith("application/json"):
            exact = '"format":"uid"' not in body and '"subject"' not in body
            validate("revocation_body" if exact else "other_revocation_body", None, json.loads(body))
            kind, token = "revocation_proof", proof if proof.count(".") == 2 else ""
        elif request.content_type.startswith("application/secevent+jwt"):
            assert isinstance(receiver, FakeEventReceiver)
            other = receiver.rules.formats is CAEP_DEV_FORMATS
            kind, token = "other_security_event" if other else "security_event", body
        else:
            [(name, token)] = parse_qsl(body)
            assert name == "command_token"
            kind = "command"
        if token:
            header, claims = verify_signature(token, rsa_keys(site), ["RS256"])
            if (
                not isinstance(receiver, FakeEventReceiver)
                or receiver.rules.formats is None
                or claims["sub_id"].get("iss")
            ):
                validate(kind, header, claims)
            jtis.append(claims["jti"])
    assert len({*jtis}) == len(jtis), "a jti was sent twice"
    return jtis
