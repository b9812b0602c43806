"""Decides which values a registry source may set: the table is in docs/configuration/registry-sources.md.

A file belongs to the operator and may set all values. Any other source is called a list here. A list may set the
addresses of its clients, and limits of the requests to them. It may not change the contents or audience of tokens, nor
grant a client the operator's credentials or network access. Therefore no list can cause a token that another service
accepts, and no list affects the clients of another issuer. Other values in a row are ignored or reduced, and reported,
and the client stays in force.
"""

import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from notifier.configuration.clients.client_rows import Row, intern_names
from notifier.model.durations import format_duration, parse_duration
from notifier.model.origins import host_of
from notifier.model.presets import PRESETS
from notifier.model.printable import excerpt
from notifier.model.record import record
from notifier.settings.clients import ClientOptions
from notifier.settings.input_issues import submodel
from notifier.settings.policies import RetrySettings
from notifier.settings.service_settings import Settings

LIST_OPTIONS = frozenset(
    {
        "preset", "subject", "front_channel", "paused", "per_second", "max_concurrent", "lifetime", "timeout", "retry",
        "retry_statuses", "audience", "max_age", "sub_only_max_age",
    }
)  # fmt: skip
"""Members of `notifier` that a list may set; some within limits. Only files may set others."""
MAX_TIMEOUT_SECONDS = 10.0
"""The longest `timeout` that a list may set, unless the default is longer. Clients of one issuer that hang for minutes
would hold the slots of other issuers."""
REDACTED = "(not kept)"
"""Replaces a value that no list may set: it may be a secret, and must reach neither memory nor cache."""
_FILE_ONLY = "only a file may set it; it is ignored"
_GONE = {f"retry.{name}": f"{why}; it is ignored" for name, why in RetrySettings.gone.items()}
_CLIENTS_ADVICE = "if it may have this client, add the name to clients of {} in registry.sources"
_UNKNOWN = "there is no such setting"
_ON_PAGES = "frontchannel_logout_uri"
MAX_NAME_CHARS = 60  # characters shown of an unknown name in a row
MAX_NAMED_ALIASES = 5  # aliases of a client that a message lists
MOVED = "an address leads to an origin that no file names: `notifier status` shows the origin"
"""A kind of ignored values, see `IgnoredMembers`."""


@record
class ListBounds:
    """The limits of the values that a list may set for clients of one issuer.

    `most`: the largest value of the members of `notifier` that have one; durations in seconds. `issuer_hosts`: the
    issuer's own hosts, to which browsers send its cookies on any port. `options`: the members that `notifier` may have
    in a file.
    """

    most: Mapping[str, float]
    issuer_hosts: frozenset[str]
    options: frozenset[str] = frozenset(ClientOptions.model_fields)


def option_names(settings: Settings) -> frozenset[str]:
    """Return the members of a client's `notifier`, including members of features."""
    options = submodel(settings.client_metadata.model_fields["notifier"].annotation)
    return frozenset() if options is None else frozenset(options.model_fields)


def bounds_of(settings: Settings, iss: str) -> ListBounds:
    """Return the limits: the values in force without the list, MAX_TIMEOUT_SECONDS, and the hosts of the issuer."""
    defaults, template = settings.registry.defaults.get(iss), settings.template()
    most = {
        "max_age": template.retry.max_age,
        "sub_only_max_age": template.retry.sub_only_max_age,
        "timeout": template.timeout,
        "max_concurrent": template.max_concurrent,
    }
    most |= {name: own for name in most if defaults is not None and (own := getattr(defaults, name)) is not None}
    most["timeout"] = max(most["timeout"], MAX_TIMEOUT_SECONDS)
    return ListBounds(most=most, issuer_hosts=issuer_hosts(settings, iss), options=option_names(settings))


def issuer_hosts(settings: Settings, iss: str) -> frozenset[str]:
    """Return the issuer's own hosts: the host of its identifier, and the host of its logout pages."""
    url = None if settings.web is None else settings.web.url_of(iss)
    return frozenset(filter(None, (host_of(iss), None if url is None else host_of(url))))


@record
class Authority:
    """The clients that a list may have: clients of these issuers, with a `client_id` that one of the patterns matches.

    Without patterns (`clients` is None) the list may have all clients of the issuers.
    """

    issuers: Sequence[str]
    clients: Sequence[str] | None = None

    def reason_against(self, row: Mapping[str, Any], source: str) -> str | None:
        """Return why the list may not have the client of this row, None if it may. Invalid rows are checked elsewhere.

        `source`: the name of the list.
        """
        issuer = row.get("issuer")
        if issuer is not None:
            issuers = issuer if isinstance(issuer, list | tuple) else [issuer]
            forbidden = [iss for iss in issuers if iss not in self.issuers]
            if forbidden:
                return self._reason_against_issuer(forbidden[0], source)
        client_id = row.get("client_id")
        if not isinstance(client_id, str) or self.can_have(client_id):
            return None
        patterns = _join_names(self.clients or ())
        return f"is beyond {source}, which may speak of clients {patterns} alone: {_CLIENTS_ADVICE.format(source)}"

    def _reason_against_issuer(self, iss: object, source: str) -> str:
        permission = f"{source} may speak for {_join_names(self.issuers)} alone"
        if iss == "*" or not isinstance(iss, str):
            return (
                f'is of issuer {str(iss)[:200]}; {permission}: have the list name an issuer, or none ("*" is for files)'
            )
        issuers = ", ".join((*self.issuers, excerpt(iss)))
        remedy = f"if it may have this client, write issuers: [{issuers}] for {source} in registry.sources"
        return f"is of issuer {str(iss)[:200]}; {permission}: {remedy}"

    def reason_without_issuer(self, source: str) -> str | None:
        """Return why a row must name its issuer; None if the source has one issuer only."""
        if len(self.issuers) < 2:
            return None
        return (
            f"names no issuer, and {source} may speak for {_join_names(self.issuers)}: have the list name one of them"
        )

    def can_have(self, name: str) -> bool:
        """Return True if the list may have a client of this name."""
        return self.clients is None or any(fnmatchcase(name, pattern) for pattern in self.clients)


def allowed_aliases(authority: Authority | None, aliases: Sequence[Any]) -> Sequence[str]:
    """Return the aliases that the source may set: the patterns for `client_id` apply to aliases too.

    `authority`: None for a file, which may set all aliases.
    """
    return [name for name in map(str, aliases) if authority is None or authority.can_have(name)]


def _join_names(names: Sequence[str]) -> str:
    return ", ".join(names) or "no issuer"


def redact_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section `notifier` of a row, with REDACTED in place of values that no list may set.

    The names of these members stay, so that they are reported as ignored.
    """
    redacted = {name: value if name in LIST_OPTIONS or value is None else REDACTED for name, value in options.items()}
    return intern_names(redacted)


def limit_row(
    row: Row, bounds: ListBounds, authority: Authority | None = None, *, suggest: bool = True
) -> tuple[Row, Mapping[str, str]]:
    """Return the row with only the values that a list may set, and the reason for each ignored or reduced member.

    The patterns of the source's `authority` apply to aliases too. `suggest`: compare an unknown name with the options,
    which takes 0.2 ms.
    """
    ignored = {}
    listed = row.get("aliases")
    aliases = listed if isinstance(listed, list) else []
    allowed = allowed_aliases(authority, aliases)
    if authority is not None and len(allowed) < len(aliases):
        forbidden = [excerpt(alias, MAX_NAME_CHARS) for alias in map(str, aliases) if not authority.can_have(alias)]
        more = f" and {len(forbidden) - MAX_NAMED_ALIASES:,} more" if len(forbidden) > MAX_NAMED_ALIASES else ""
        patterns = _join_names(authority.clients or ())
        ignored["aliases"] = (
            f"{', '.join(map(repr, forbidden[:MAX_NAMED_ALIASES]))}{more} {'is' if len(forbidden) == 1 else 'are'}"
            f" beyond the source, which may speak of clients {patterns} alone (its clients in registry.sources)"
        )
    uri = row.get(_ON_PAGES)
    host = host_of(uri) if isinstance(uri, str) else None
    if host in bounds.issuer_hosts:
        ignored[_ON_PAGES] = f"is on {host}, the issuer's own host: browsers would send its cookies along; {_FILE_ONLY}"
    section = row.get("notifier")
    options: Mapping[str, Any] = {}
    if isinstance(section, Mapping):
        options, ignored_options = _limit_options(section, bounds, suggest=suggest)
        ignored |= ignored_options
    if not ignored:
        return row, {}
    limited = {name: value for name, value in row.items() if name not in ignored}
    if allowed:
        limited["aliases"] = allowed
    if isinstance(section, Mapping):
        limited["notifier"] = options
    return limited, ignored


def _limit_options(
    options: Mapping[str, Any], bounds: ListBounds, *, suggest: bool
) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    """Return the members of the section `notifier` that a list may set, and the reason for each that differs."""
    kept, unknown = dict(options), []
    ignored: dict[str, str] = {}
    for name, value in options.items():
        if name == "retry" and isinstance(value, Mapping):
            gone = RetrySettings.gone.keys() & value.keys()
            ignored |= {f"notifier.retry.{inner}": _GONE[f"retry.{inner}"] for inner in sorted(gone)}
            kept["retry"] = {inner: setting for inner, setting in value.items() if inner not in gone}
        if value is None:
            continue
        if name not in bounds.options:
            unknown.append(name)
            del kept[name]
        elif (reason := _reason_against(name, value)) is not None:
            ignored[f"notifier.{name}"] = reason
            del kept[name]
        elif name in bounds.most and _quantity(name, value) > bounds.most[name]:
            kept[name] = bounds.most[name] if name == "max_concurrent" else format_duration(bounds.most[name])
            ignored[f"notifier.{name}"] = f"a list may set at most {kept[name]}; it is reduced to this"
    if unknown:  # one message, since a row may have thousands of unknown members
        more = f" (and {len(unknown) - 1:,} more)" if len(unknown) > 1 else ""
        hint = _suggest_option(unknown[0]) if suggest else "; it is ignored"
        ignored[f"notifier.{excerpt(unknown[0], MAX_NAME_CHARS)}"] = f"{_UNKNOWN}{hint}{more}"
    return kept, ignored


def kind_of(member: str, text: str) -> str:
    """Return the text by which ignored values are counted: the reason, without names and values from the row."""
    if member == "aliases":
        return "aliases: some are beyond the source; they are ignored"
    return f"notifier: {_UNKNOWN}; it is ignored" if text.startswith(f"{member}: {_UNKNOWN}") else text


def _reason_against(name: str, value: Any) -> str | None:
    if name not in LIST_OPTIONS:
        return _FILE_ONLY
    if name == "audience" and value not in ("string", "list", []):
        return "a list may set only string or list, and no further audiences; it is ignored"
    preset = PRESETS.get(value) if name == "preset" and isinstance(value, str) else None
    if preset is not None:
        file_only = [member for member in ("typ", "audience") if getattr(preset, member)]
        return f"preset {value} sets {file_only[0]}: {_FILE_ONLY}" if file_only else None
    return None


def _suggest_option(name: str) -> str:
    """Return the end of a message about an unknown option: the option that the name may mean, if any."""
    matches = get_close_matches(name, LIST_OPTIONS, 1) if len(name) <= MAX_NAME_CHARS else ()
    return f"; did you mean {matches[0]}?" if matches else "; it is ignored"


def _quantity(name: str, value: Any) -> float:
    """Return the number, or seconds; 0 for an invalid value, which is reported as an error of the row."""
    try:
        return float(value) if name == "max_concurrent" else parse_duration(value)
    except (ValueError, TypeError):
        return 0.0
    except OverflowError:  # an integer of more than 308 digits
        return math.inf
