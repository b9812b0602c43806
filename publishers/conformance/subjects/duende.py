"""Duende IdentityServer 7.4.8 with our package for C#, sessions in SQLite by its Entity Framework store."""

import json
import os
import shutil
import time
import urllib.request
from pathlib import Path

from publishers.conformance.host_process import ANSWER_WITHIN, HostProcess
from publishers.conformance.subject import Missing, Session, Settings, Traits

PROJECT = Path(__file__).parents[2] / "duende/tests/Notifier.Host"
HOST = PROJECT / "bin/Release/net10.0/Notifier.Host.dll"


def subject(folder: Path) -> "Duende":
    """One, not started."""
    if shutil.which("dotnet") is None:
        raise Missing("Duende IdentityServer needs .NET 10: there is no `dotnet`")
    if not HOST.exists():
        raise Missing(f"the host of Duende IdentityServer is not built: dotnet build -c Release {PROJECT}")
    return Duende(folder, "host")


class Duende(HostProcess):
    """See the module."""

    name = "duende"
    traits = Traits()

    async def start(self, settings: Settings) -> None:
        """It prints its port."""
        (self._folder / "keys").mkdir(exist_ok=True)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("Notifier__", "ASPNETCORE_"))},
            "DOTNET_CLI_TELEMETRY_OPTOUT": "1",
            "STATE": str(self._folder),
            **_spelled(settings),
            **settings.environment,
        }
        await self._begin("dotnet", str(HOST), folder=self._folder, environment=environment)

    async def sibling(self) -> "Duende":
        """At the same store, key ring and outbox."""
        return Duende(self._folder, self._part_of_sibling())

    async def sign_in(self, count: int = 1) -> list[Session]:
        """Rows as sign-ins at two clients leave them, and the cookie of each."""
        return await self._sign_in(count, _entry("mail"), _entry("shop"))

    async def sign_out(self, session: Session) -> float:
        """`HttpContext.SignOutAsync`, with the cookie."""
        before = time.monotonic()
        await self._ask("POST", "/sign-out", headers={"Cookie": session.secret[3]})
        return time.monotonic() - before

    async def die_deleting(self, session: Session) -> None:
        """The package's own tests hold a deletion back."""
        raise NotImplementedError

    async def lives(self, session: Session) -> bool:
        """Return the store's answer."""
        return bool(await self._ask("GET", "/lives", params={"key": session.secret[0]}))

    def memory(self) -> int:
        """The managed heap after a full collection."""
        with urllib.request.urlopen(f"{self._at}/memory", timeout=ANSWER_WITHIN) as answer:
            return int(json.load(answer)["managed"])


def _entry(client: str) -> dict[str, object]:
    return {
        "client_id": client,
        "backchannel_logout_uri": f"https://{client}.example.com/logout",
        "backchannel_logout_session_required": True,  # Duende's default
    }


def _spelled(settings: Settings) -> dict[str, str]:
    """As the package has them."""
    tls = {} if settings.ca_file is None else {"Notifier__Tls__CaFile": str(settings.ca_file)}
    return {
        "Notifier__Url": settings.url,
        "Notifier__SecretFile": str(settings.secret_file),
        "Notifier__Outbox__Folder": str(settings.outbox),
        "Notifier__Outbox__MaxEvents": str(settings.max_events),
        "Notifier__Outbox__MaxBytes": str(settings.max_bytes),
        "Notifier__Outbox__MaxAge": _span(settings.max_age),
        "Notifier__HandoverLimit": _span(settings.sign_out_limit),
        "Notifier__PublishLimit": _span(settings.publish_limit),
        "Notifier__DrainLimit": _span(settings.drain_limit),
        **tls,
    }


def _span(seconds: float) -> str:
    """`d.hh:mm:ss.fff`."""
    whole = int(seconds)
    return f"{whole // 86400}.{whole // 3600 % 24:02}:{whole // 60 % 60:02}:{seconds % 60:06.3f}"
