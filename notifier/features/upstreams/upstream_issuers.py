"""Validate the section `upstreams` against the other settings, and report it for `notifier check`."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec

from notifier.configuration.configured_feature import FeaturePart
from notifier.configuration.loading import LoadedConfiguration
from notifier.feature import FeatureReport
from notifier.features.upstreams.relay_settings import (
    JTI_PREFIX,
    check_relays,
    relay_warnings,
    relayed_issuers,
    report_relays,
)
from notifier.features.upstreams.upstream_settings import (
    SameSubSettings,
    SessionsSqlSettings,
    UpstreamSettings,
    check_issuer,
    issuer_or_only,
    upstreams_of,
)
from notifier.model.errors import InputIssue
from notifier.model.registry import Registry
from notifier.settings.service_settings import Settings


def read_upstreams(settings: Settings, registry: Registry, invalid_sections: frozenset[str]) -> FeaturePart:
    """Return all errors and warnings, also those of relays. `invalid_sections`: settings sections with an error."""
    return FeaturePart(
        mistakes=[*check_upstreams(settings, invalid_sections), *check_relays(settings, invalid_sections)],
        warnings=[*upstream_warnings(settings), *relay_warnings(settings, registry)],
        jti_prefixes=dict.fromkeys(relayed_issuers(settings).values(), JTI_PREFIX),
    )


def local_issuer(upstream: UpstreamSettings, settings: Settings) -> str | None:
    """Return the issuer of the local sessions; None if none is chosen."""
    return issuer_or_only(upstream.iss, settings)


def _is_installed(library: str) -> bool:
    return find_spec(library) is not None


def check_upstreams(
    settings: Settings, invalid_sections: frozenset[str], is_installed: Callable[[str], bool] = _is_installed
) -> list[InputIssue]:
    """Return all errors. `invalid_sections`: settings sections with an error. `is_installed`: of a library."""
    sql_upstreams = [name for name, upstream in upstreams_of(settings).items() if upstream.resolve.sql is not None]
    mistakes = []
    if sql_upstreams and not is_installed("sqlalchemy"):
        text = "needs SQLAlchemy: pip install 'logout-notifier[postgresql]', or [mysql], [mssql] or [sql] (SQLite)"
        mistakes += [InputIssue(f"upstreams.{name}.resolve.sql", text) for name in sql_upstreams]
    if "issuers" in invalid_sections:
        return mistakes
    for name, upstream in upstreams_of(settings).items():
        iss = local_issuer(upstream, settings)
        mistakes += check_issuer("upstream", name, f"upstreams.{name}.iss", iss, settings)
    return [*mistakes, *_check_prefixes(settings)]


def _check_prefixes(settings: Settings) -> Iterator[InputIssue]:
    """Yield an error for each prefix of `sub` that begins with the prefix of another upstream of the same issuer.

    The other upstream could end the sessions of this upstream's users.
    """
    prefixes = [
        (f"upstreams.{name}.resolve.{way}.prefix", local_issuer(upstream, settings), section.prefix)
        for name, upstream in upstreams_of(settings).items()
        for way, section in _prefix_sections(upstream)
        if section.prefix
    ]
    for setting, iss, prefix in prefixes:
        for other_setting, other_iss, other_prefix in prefixes:
            if iss == other_iss and prefix != other_prefix and prefix.startswith(other_prefix):
                text = (
                    f"begins with that of {other_setting}, {other_prefix!r}, so that upstream could end sessions of"
                    " this one's users; let none begin with another: end each with a character that is nowhere else in"
                    " them"
                )
                yield InputIssue(setting, text)


def _prefix_sections(upstream: UpstreamSettings) -> Iterator[tuple[str, SameSubSettings | SessionsSqlSettings]]:
    """Yield the members of `resolve` that have a prefix for the `sub` of the upstream's users, with their names."""
    if upstream.resolve.same_sub is not None:
        yield "same_sub", upstream.resolve.same_sub
    if upstream.resolve.sql is not None:
        yield "sql", upstream.resolve.sql


def upstream_warnings(settings: Settings) -> list[InputIssue]:
    """Return the warnings about all upstreams. Without a section `web`, there is one for each: it has no effect."""
    if settings.web is None:
        text = "has no effect without a section `web`, which opens the listener"
        return [InputIssue(f"upstreams.{name}", text) for name in upstreams_of(settings)]
    upstreams = upstreams_of(settings).items()
    return [warning for name, upstream in upstreams for warning in _find_warnings(name, upstream, settings)]


def _find_warnings(name: str, upstream: UpstreamSettings, settings: Settings) -> Iterator[InputIssue]:
    """Yield the warnings about one upstream: settings without effect, and settings that permit too much."""
    iss, setting = local_issuer(upstream, settings), f"upstreams.{name}"
    if not upstream.front_channel:
        unused = [member for member in ("parents", "without_iss") if member in upstream.model_fields_set]
        text = "has no effect: browsers may not call this upstream's address without front_channel: true"
        yield from (InputIssue(f"{setting}.{member}", text) for member in unused)
    if upstream.algorithms is None and upstream.jwks_uri is not None:
        text = (
            "is not set, and jwks_uri is read without the provider's metadata, so tokens signed with any algorithm are"
            " accepted: name the registered id_token_signed_response_alg, RS256 by default"
        )
        yield InputIssue(f"{setting}.algorithms", text)
    if upstream.issuer == iss:
        return  # the upstream is the identity server itself
    for way, section in _prefix_sections(upstream):
        if section.prefix == "":
            text = (
                f"is empty, so {upstream.issuer} can end the sessions of every user at {iss}: write a prefix that no"
                " other user's sub has"
            )
            yield InputIssue(f"{setting}.resolve.{way}.prefix", text)
    sql = upstream.resolve.sql
    if sql is not None and sql.preset is not None and sql.prefix is None:
        text = (
            "is not set, so a token without sid ends nothing and becomes a dead letter, and one with a sid ends that"
            " session of any user: write the prefix of its users' sub here"
        )
        yield InputIssue(f"{setting}.resolve.sql.prefix", text)


def report_upstreams(loaded: LoadedConfiguration) -> FeatureReport:
    """Return the paths of each upstream and relay, and an upstream's way to find sessions, for `notifier check`."""
    members, lines, settings = {}, [], loaded.settings
    for name, upstream in upstreams_of(settings).items():
        iss, resolve = local_issuer(upstream, settings), next(iter(upstream.resolve.model_fields_set), None)
        path, browser_path = f"/upstreams/{name}/backchannel-logout", f"/upstreams/{name}/frontchannel-logout"
        members[name] = {
            "issuer": upstream.issuer,
            "client_id": list(upstream.client_id),
            "iss": iss,
            "resolve": resolve,
            "path": path,
            "front_channel": browser_path if upstream.front_channel else None,
        }
        back_channel = f"{upstream.issuer}, as {', '.join(upstream.client_id)}: posts to {path}"
        front_channel = f"; browsers may call {browser_path}" if upstream.front_channel else ""
        lines.append(f"upstream {name}: {back_channel}, sessions at {iss} by {resolve}{front_channel}")
    relays = report_relays(settings)
    return FeatureReport(members={"upstreams": members, **relays.members}, lines=[*lines, *relays.lines])
