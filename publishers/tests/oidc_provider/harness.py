"""What a test of the package stands on: keys, what reaches a broker, and providers."""

import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joserfc.jwk import ECKey, RSAKey

from notifier.model.client import Algorithm
from notifier.tokens.key_files import generate_key
from publishers.tests.oidc_provider.browser import Browser
from publishers.tests.oidc_provider.clients import registrations
from publishers.tests.oidc_provider.provider import Provider, Settings, running
from publishers.tests.tap import Tap, tap
from tests.support.rabbitmq_node import free_ports

NOWHERE = "http://127.0.0.1:1"
ALGORITHMS = (Algorithm.RS256, Algorithm.ES256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Keys of the provider's and of notifier's, one of each algorithm. `file`: what server.js reads."""

    file: Path
    pems: Sequence[Path]
    notifiers: frozenset[str]
    providers: frozenset[str]


def make_keys(folder: Path) -> Keys:
    """New ones."""
    made: dict[str, list[dict[str, Any]]] = {"provider": [], "notifier": []}
    pems = []
    for whose, keys in made.items():
        for algorithm in ALGORITHMS:
            pem = generate_key(algorithm)
            key = (ECKey if algorithm is Algorithm.ES256 else RSAKey).import_key(pem.decode())
            of_notifier = whose == "notifier"
            about = {"kid": key.thumbprint(), "use": "sig", "alg": algorithm.value}
            keys.append({**key.as_dict(private=not of_notifier), **about})
            if of_notifier:
                pems.append(folder / f"{algorithm}.pem")
                pems[-1].write_bytes(pem)
    file = folder / "keys.json"
    file.write_text(json.dumps({"provider": {"keys": made["provider"]}, "notifier": made["notifier"]}))
    kids = {whose: frozenset(key["kid"] for key in keys) for whose, keys in made.items()}
    return Keys(file=file, pems=pems, notifiers=kids["notifier"], providers=kids["provider"])


@dataclass(slots=True, kw_only=True)
class Harness:
    """Made by `make_harness`. `events`: what reached the exchange, however the publisher got there."""

    folder: Path
    version: str
    keys: Keys
    redis: str
    prefix: str
    events: Tap
    broker: str
    receivers: str = NOWHERE
    session: int = 3600

    @property
    def outbox(self) -> Path:
        """The setting of every process."""
        return self.folder / "outbox"

    def options(self, **more: Any) -> dict[str, Any]:
        """The package's, as an application would give them; `more` goes into them, into their groups too."""
        defaults: dict[str, Any] = {
            "outbox": {"folder": str(self.outbox)},
            "url": self.broker,
            "exchange": f"{self.prefix}.events",
            "bulkExchange": f"{self.prefix}.bulk",
        }
        groups = {name: {**defaults[name], **more.pop(name)} for name in list(more) if name == "outbox"}
        return {**defaults, **more, **groups}

    def settings(self, *, beside: Provider | None = None, publish: bool = True, **more: Any) -> Settings:
        """Of a process. `beside`: of one with the same issuer. `publish`: with the package."""
        names = Settings.__dataclass_fields__.keys()
        ours = {name: more.pop(name) for name in list(more) if name in names}
        [port] = free_ports(1)
        issuer = f"http://127.0.0.1:{port}{ours.get('path', '')}" if beside is None else beside.settings.issuer
        defaults: dict[str, Any] = {
            "version": self.version,
            "port": port,
            "issuer": issuer,
            "clients": registrations(self.receivers),
            "keys": str(self.keys.file),
            "publisher": self.options(**more) if publish else None,
            "redis": self.redis,
            "session": self.session,
        }
        return Settings(**defaults | ours)

    @contextlib.asynccontextmanager
    async def provider(self, **more: Any) -> AsyncIterator[Provider]:
        """A process that runs. `more`: `settings` and the package's options."""
        async with running(self.folder, self.settings(**more)) as provider:
            yield provider

    @contextlib.asynccontextmanager
    async def signed_in(self, provider: Provider, user: str, *clients: str, **more: str) -> AsyncIterator[Browser]:
        """A browser whose user is signed in at these clients."""
        async with Browser(provider.settings.issuer, user, at=provider.url) as browser:
            yield await browser.sign_in(*clients, **more)

    def files(self) -> list[Path]:
        """Return the files in the outbox, of any process."""
        found = (path for path in self.outbox.rglob("*") if path.is_file())
        return sorted(path for path in found if path.suffix in (".part", ".pending", ".json", ".expired", ".refused"))


@contextlib.asynccontextmanager
async def make_harness(
    folder: Path, *, version: str, keys: Keys, redis: str, broker: str, prefix: str
) -> AsyncIterator[Harness]:
    """With a broker whose topology stands."""
    async with tap(broker, prefix) as events:
        yield Harness(
            folder=folder, version=version, keys=keys, redis=redis, prefix=prefix,
            events=events, broker=broker,
        )  # fmt: skip


def entry(browser: Browser, client_id: str, registered: Mapping[str, Any]) -> dict[str, Any]:
    """Return a client's entry in an event: from its ID token and its registration at the provider."""
    claims = browser.claims[client_id]
    uri = registered.get("backchannel_logout_uri")
    made: dict[str, Any] = {"client_id": client_id, "backchannel_logout_uri": uri}
    if uri is None:
        return made
    if "sid" in claims:
        made["sid"] = claims["sid"]
    if registered.get("subject_type") == "pairwise":
        made["sub"] = claims["sub"]
    made["backchannel_logout_session_required"] = registered.get("backchannel_logout_session_required", False)
    made["id_token_signed_response_alg"] = registered.get("id_token_signed_response_alg", "RS256")
    return made
