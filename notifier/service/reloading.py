"""Reads the configuration of a worker again: when a file changes, on SIGHUP, and when an operator asks."""

import asyncio
import gc
import time
from collections.abc import Sequence

from notifier.configuration.live_configuration import LiveConfiguration
from notifier.configuration.registry_sources import RegistrySources
from notifier.configuration.signer_watch import SignerWatch
from notifier.configuration.signing_keys import SigningKeys
from notifier.operators.status.reload_request import Reload, ReloadResult
from notifier.settings.file_watch import Watch, watch_files
from notifier.telemetry.audit import write_audit


class Reloading:
    """The reloads of one worker, one at a time."""

    def __init__(
        self,
        live: LiveConfiguration,
        one_at_a_time: asyncio.Lock,
        registry: RegistrySources,
        signing_keys: SigningKeys,
        signers: SignerWatch,
    ) -> None:
        """`one_at_a_time`: held while the registry is replaced."""
        self._live = live
        self._lock = one_at_a_time
        self._registry = registry
        self._signing_keys = signing_keys
        self._signers = signers
        self._files = Watch(live.now.stamps)

    async def watch(self) -> None:
        """Reload when a file of the configuration changes, until cancelled."""

        async def changed() -> None:
            await self._reload(asked=False)

        await watch_files(self._files, changed, clock=time.monotonic)

    async def on_signal(self) -> None:
        """Read the files and the registry sources, as SIGHUP asks. What guards against a loss of clients holds."""
        await self._reload(asked=True)
        self._registry.ask()

    async def carry_out(self, reload: Reload) -> ReloadResult:
        """Read the files and the registry sources, as an operator asks. A drop reads the sources alone.

        The files have not changed by it, and to read 100,000 clients anew takes as long as the drop itself.
        """
        accepted_by = reload.who if reload.accept_loss else None
        write_audit("reload_asked", who=reload.who, accept_loss=reload.accept_loss, drop=reload.drop)
        if reload.drop is None:
            problems = await self._reload(asked=True, accepted_by=accepted_by)
        else:
            unknown = self._registry.drop(reload.drop, reload.who)
            problems = () if unknown is None else (unknown,)
        sources = await self._registry.refresh.refresh(accepted_by=accepted_by)
        registry = self._live.registry()
        return ReloadResult(
            problems=problems,
            restart_needed=self._live.reloads.wait_for_restart,
            issuers=len(registry.issuers),
            clients=sum(len(of_issuer) for of_issuer in registry.clients.values()),
            sources=sources,
            signers=await self._signers.silent(),
        )

    async def _reload(self, *, asked: bool, accepted_by: str | None = None) -> Sequence[str]:
        """Read the configuration again; return why it was not taken. In a thread: 100,000 clients take seconds."""
        async with self._lock:
            if await asyncio.to_thread(self._live.reload, asked=asked, accepted_by=accepted_by):
                self._files.rebase(self._live.now.stamps)
                self._signing_keys.look_soon()
                self._signers.follow()
                self._registry.sync()
                gc.freeze()
                return ()
            self._files.add(self._live.named)
            return self._live.reloads.problems
