"""Checks what `upstreams` says of issuers, and says at which issuer the sessions of each upstream are."""

from difflib import get_close_matches

from notifier.domain.errors import Mistake
from notifier.settings.service_settings import Settings
from notifier.settings.upstream_settings import UpstreamSettings


def local_issuer(upstream: UpstreamSettings, settings: Settings) -> str | None:
    """The issuer at which its sessions are; None if nothing says so."""
    if upstream.iss is not None:
        return upstream.iss
    return next(iter(settings.issuers)) if len(settings.issuers) == 1 else None


def upstream_mistakes(settings: Settings, unsure: frozenset[str]) -> list[Mistake]:
    """Every mistake. `unsure`: the sections of the settings that are wrong."""
    if "issuers" in unsure:
        return []
    mistakes = []
    for name, upstream in settings.upstreams.items():
        iss = local_issuer(upstream, settings)
        place = f"upstreams.{name}"
        if iss is None:
            text = f"is required, since there is not exactly one issuer; it is one of {', '.join(settings.issuers)}"
            mistakes.append(Mistake(f"{place}.iss", text))
        elif iss not in settings.issuers:
            near = get_close_matches(iss, settings.issuers, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            mistakes.append(Mistake(f"{place}.iss", f"{iss} is not configured under issuers{hint}"))
        elif (publishers := settings.issuers[iss].publishers) is not None and name not in publishers:
            text = f"must name {name} too, or every event of the upstream {name} becomes a dead letter"
            mistakes.append(Mistake(f"issuers.{iss}.publishers", text))
    return mistakes


def upstream_warnings(settings: Settings) -> list[Mistake]:
    """The upstreams that nobody can call."""
    if settings.web is not None:
        return []
    text = "has no effect without a section `web`, which opens the listener"
    return [Mistake(f"upstreams.{name}", text) for name in settings.upstreams]
