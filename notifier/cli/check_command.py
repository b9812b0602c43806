"""The command `notifier check`: lists every mistake of a configuration, or summarizes a configuration without any."""

import time
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from notifier.configuration.clients.followers import find_listed_followers
from notifier.configuration.clients.layer import Layer
from notifier.configuration.clients.registry_checks import examine_tls_files, find_unsignable
from notifier.configuration.clients.source_reading import DirectReader
from notifier.configuration.configured_feature import reader_builder
from notifier.configuration.file_mistakes import find_start_errors, find_tls_mistakes
from notifier.configuration.inline_senders import find_unlisted_user
from notifier.configuration.loading import LoadedConfiguration, find_shared_keys
from notifier.configuration.provenance import effective_clients_of
from notifier.configuration.secret_files import find_exposed_files, secrets_of
from notifier.feature import FeatureReport
from notifier.features import FEATURES
from notifier.model.durations import DAY_SECONDS
from notifier.model.errors import ConfigurationError, InputIssue
from notifier.model.front_channel import is_on_page
from notifier.model.ignored_members import IssueGroup, group_issues
from notifier.model.moment import format_moment_for_people
from notifier.model.printable import counted
from notifier.model.registry import Registry
from notifier.operators.terminal.command_options import (
    Config,
    Json,
    check_keys,
    exit_with_issues,
    load_configuration,
    quiet_logs,
)
from notifier.operators.terminal.output import say, say_json
from notifier.operators.terminal.queue_access import redact_urls
from notifier.settings.service_settings import Settings
from notifier.settings.subject_key import CREATE_COMMAND, find_short_key, is_subject_key_missing
from notifier.tokens.key_ring import SigningKey

MAX_REASONS = 3  # per source, for left-out rows; the warnings have all
_CLIENT_GROUPS = (
    ("by_browser", "notified only by browsers"),
    ("without_uri", "without backchannel_logout_uri, never notified"),
    ("without_sid", "notified only of events without sid (their channel ends all sessions of a user)"),
    ("paused", "paused"),
)


def check(
    config: Config = None,
    offline: Annotated[
        bool,
        typer.Option(
            "--offline",
            help="Connect to nothing: query no external key and no session database, and take registry sources from"
            " the cache, if there is one.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """List every mistake of a configuration, or sum it up if there is none.

    It reads the configuration, the clients, keys, tokens and secrets, and the certificates of the queue, the
    listeners and each client, as `run` does, and of other servers that a worker calls, even if a part of it is
    wrong. With --offline, unusable TLS files of a client or such a server are a warning, since a worker starts with
    them. It reads each registry source, has each external key sign, queries each session database (`upstreams`)
    with a user that cannot exist, and connects to nothing else (`notifier doctor` does). A source, key or database
    without an answer is a mistake. Without mistakes it shows the issuers with their keys, the clients, the queue
    and the listeners. It warns of secrets that others may read, of settings that have no effect, of exchanges that
    belong to the broker, and if a user cannot be found in the log (log.subject_key_file).

    Examples:
        # every mistake at once, or a summary
        notifier check -c /etc/notifier/notifier.yaml
        # before a roll-out: exit status 2 if there is a mistake
        notifier check -c new.yaml && cp new.yaml live.yaml
        # without asking databases and servers for clients
        notifier check -c n.yaml --offline
        # the mistakes for a script
        notifier check -c n.yaml --json | jq -r '.mistakes[].path'
    """
    quiet_logs()
    sources = DirectReader(None if offline else reader_builder(FEATURES))
    tls_warnings: list[InputIssue] = []
    tolerated: list[InputIssue] = []  # of these, what is a mistake without --offline

    def find_more(
        settings: Settings, registry: Registry, layers: Sequence[Layer], reported: Collection[Path]
    ) -> list[InputIssue]:
        client_faults, expired = examine_tls_files(registry, time.time(), reported)
        tls_faults = [*find_tls_mistakes(settings, reported), *client_faults]
        tolerated.extend(tls_faults if offline else [])  # as a start: they affect only clients
        tls_warnings.extend([*tolerated, *expired])
        named = [mistake.text.partition("; until")[0] for mistake in tls_faults]
        problems = [item for item in sources.problems.items() if not any(text in item[1] for text in named)]
        unread = [InputIssue(f"registry source {name}", text) for name, text in problems]
        followers = find_listed_followers(layers, tuple(settings.issuers))
        started = find_start_errors(settings, registry, layers, reported)
        return [*started, *unread, *followers, *([] if offline else tls_faults)]

    try:
        loaded = load_configuration(config, FEATURES, as_json=False, answer_of=sources, find_more=find_more)
    except ConfigurationError as error:  # so that all files can be repaired at once
        beside = [InputIssue(each.path, f"{each.text} (alone, a warning)") for each in tolerated]
        exit_with_issues([*error.mistakes, *beside], as_json=as_json)
    if not offline:
        mistakes = [*check_keys(loaded.keys), *find_unsignable(loaded.registry, loaded.build_context.algorithms_of)]
        mistakes += [mistake for feature in FEATURES for mistake in feature.find_remote_issues(loaded)]
        if mistakes:
            exit_with_issues(mistakes, as_json=as_json)
    reports = [feature.report(loaded) for feature in FEATURES]
    summary = _summarize(loaded, sources, reports, tls_warnings)
    if as_json:
        say_json({"mistakes": [], **summary}, indent=2)
    else:
        say(_format_summary(summary, reports))


def _summarize(
    loaded: LoadedConfiguration,
    sources: DirectReader,
    reports: Sequence[FeatureReport],
    tls_warnings: Sequence[InputIssue],
) -> dict[str, Any]:
    """Return the members that `--json` prints for a configuration without mistakes, except `mistakes`."""
    settings, queue = loaded.settings, loaded.settings.queue
    return {
        "issuers": {iss: _summarize_issuer(iss, loaded) for iss in settings.issuers},
        "warnings": _list_warnings(
            loaded, [*(warning for part in reports for warning in part.warnings), *tls_warnings]
        ),
        "registry": [
            {**_summarize_source(layer, loaded), "cached": layer.name in sources.cached} for layer in loaded.layers
        ],
        **{name: member for report in reports for name, member in report.members.items()},
        "queue": {"url": redact_urls(queue), "prefix": queue.prefix, "topology": queue.topology},
        "listeners": {
            "ops": str(settings.ops.listen),
            "api": None if settings.api is None else str(settings.api.listen),
            "web": None if settings.web is None else str(settings.web.listen),
        },
    }


def _list_warnings(loaded: LoadedConfiguration, more: Sequence[InputIssue]) -> list[dict[str, Any]]:
    """Return the warnings as JSON: secrets, settings, `more`, left-out rows and ignored values of the registry."""
    settings, registry = loaded.settings, loaded.registry
    issues = [
        *find_shared_keys(settings, loaded.keys),
        *loaded.warnings,
        *more,
        *_list_issuers_without_key(loaded),
        *find_unlisted_user(settings).values(),
        *_advise_cache(settings),
    ]
    return [
        *(
            {"path": secret.setting, "text": f"{secret.text}: {secret.advice}"}
            for secret in find_exposed_files(secrets_of(settings, registry, loaded.parts))
        ),
        *_check_subject_key(settings),
        *({"path": issue.path, "text": issue.text} for issue in issues),
        *(_summarize_group(group) for group in (*group_issues(loaded.faults), *registry.ignored_groups())),
    ]


def _summarize_issuer(iss: str, loaded: LoadedConfiguration) -> dict[str, Any]:
    """Return the keys of an issuer and the numbers of its clients. `keys_not_asked`: external keys, with --offline."""
    clients = loaded.registry.clients_of(iss).values()
    without_uri = [client for client in clients if client.logout_uri is None]
    external_keys = [key.external_key for key_iss, key in loaded.keys.external_keys() if key_iss == iss]
    return {
        "keys": [_summarize_key(key) for key in loaded.keys.keys_of(iss)],
        "keys_not_asked": [key.name for key in external_keys if key.half is None],
        "clients": len(clients),
        "without_uri": sum(not is_on_page(client) for client in without_uri),
        "by_browser": sum(is_on_page(client) for client in without_uri),
        "without_sid": sum(client.channel is not None and client.channel.ends_all for client in clients),
        "paused": sum(client.paused for client in clients),
    }


def _summarize_source(layer: Layer, loaded: LoadedConfiguration) -> dict[str, Any]:
    """Return the numbers of clients and of left-out rows of a registry source, with up to MAX_REASONS reasons.

    A file has no left-out rows, since a mistake in a file is a mistake of the configuration.
    """
    if layer.file is not None:
        return {"source": layer.name, "clients": len(layer.rows), "left_out": 0, "why": []}
    served = effective_clients_of(loaded, layer)
    reasons = [
        {"text": group.first[0].text, "count": group.count}
        for group in islice(group_issues(served.faults), MAX_REASONS)
    ]
    return {"source": layer.name, "clients": served.clients, "left_out": served.left_out, "why": reasons}


def _summarize_group(group: IssueGroup) -> dict[str, Any]:
    """Return a warning that may concern many clients, with their number and the paths of some."""
    mistake = group.mistake
    return {
        "path": mistake.path,
        "text": mistake.text,
        "count": group.count,
        "first": [example.path for example in group.first],
    }


def _summarize_key(key: SigningKey) -> dict[str, Any]:
    """Return a key. `not_before` is None if the key signs now. `first_day_until` is the end of the key's first day.

    Within that day, receivers that cache the issuer's keys may refuse the key. `first_day_until` is None if the key
    first signs after that day, or if the key's age is unknown.
    """
    now = time.time()
    begins = now if key.not_before is None else max(key.not_before, now)
    first_day_end = None if key.made_at is None else key.made_at + DAY_SECONDS
    if first_day_end is not None and first_day_end <= begins:
        first_day_end = None
    return {
        "kid": key.kid,
        "algorithms": sorted(key.algorithms),
        "not_before": format_moment_for_people(begins) if begins > now else None,
        "first_day_until": None if first_day_end is None else format_moment_for_people(first_day_end),
    }


def _list_issuers_without_key(loaded: LoadedConfiguration) -> Iterator[InputIssue]:
    """Yield a warning for each issuer whose keys all sign later."""
    for iss in loaded.settings.issuers:
        moments = [key.not_before for key in loaded.keys.keys_of(iss)]
        later = [moment for moment in moments if moment is not None and moment > time.time()]
        if later and len(later) == len(moments):
            text = f"no key signs before {format_moment_for_people(min(later))}: until then its events wait"
            yield InputIssue(f'issuers["{iss}"].keys', text)


def _advise_cache(settings: Settings) -> Iterator[InputIssue]:
    """Yield a warning if the registry has lists without a cache."""
    names = [source.source_name for source in settings.registry.all_sources if source.file is None]
    if names and settings.registry.cache is None:
        text = (
            f"is not set: a worker that starts while {', '.join(names)} cannot be read waits for it, and one that"
            " starts while clients are missing there knows fewer than the others; name a folder of the worker"
        )
        yield InputIssue("registry.cache", text)


def _check_subject_key(settings: Settings) -> list[dict[str, str]]:
    """Return a warning if the key that hashes users in the log is missing or short."""
    if not is_subject_key_missing(settings):
        short = find_short_key(settings)
        return [] if short is None else [{"path": short.path, "text": short.text}]
    text = "is not set: each worker hashes users with a random key, so a user's logouts cannot be found in the log"
    return [{"path": "log.subject_key_file", "text": f"{text}: {CREATE_COMMAND}"}]


def _format_times(count: int) -> str:
    return f" ({count:,})" if count > 1 else ""


def _format_notes(notes: Sequence[str]) -> str:
    return f" ({'; '.join(notes)})" if notes else ""


def _format_summary(summary: dict[str, Any], reports: Sequence[FeatureReport]) -> str:
    """Return the text that the command prints without `--json`."""
    lines = ["no mistakes", *(f"warning: {warning['path']}: {warning['text']}" for warning in summary["warnings"])]
    for iss, issuer in summary["issuers"].items():
        lines.append(f"issuer {iss}")
        for key in issuer["keys"]:
            later = f", from {key['not_before']} on" if key["not_before"] is not None else ""
            lines.append(f"  key {key['kid']}: {', '.join(key['algorithms'])}{later}")
            if key["first_day_until"] is not None:
                until = key["first_day_until"]
                lines.append(f"    it is new: receivers that cache the issuer's keys may refuse it until {until}")
        lines += [f"  key {name}: not queried, because of --offline" for name in issuer["keys_not_asked"]]
        notes = [f"{issuer[name]} {text}" for name, text in _CLIENT_GROUPS if issuer[name]]
        lines.append(f"  {counted(issuer['clients'], 'client')}{_format_notes(notes)}")
    for source in summary["registry"]:
        notes = ["from the cache"] if source["cached"] else []
        if source["left_out"]:
            reasons = [f"{reason['text']}{_format_times(reason['count'])}" for reason in source["why"]]
            if sum(reason["count"] for reason in source["why"]) < source["left_out"]:
                reasons.append("for the others see the warnings")
            notes.append(f"{source['left_out']:,} left out: {'; '.join(reasons)}")
        client_count = counted(source["clients"], "client")
        lines.append(f"registry source {source['source']}: {client_count}{_format_notes(notes)}")
    lines += [line for report in reports for line in report.lines]
    notes = ["`notifier topology declare` declares new queues"] if summary["queue"]["topology"] == "verify" else []
    lines.append(f"queue {', '.join(summary['queue']['url'])}{_format_notes(notes)}")
    lines += [f"{name} listens on {where}" for name, where in summary["listeners"].items() if where is not None]
    return "\n".join(lines)
