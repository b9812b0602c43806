"""`notifier check`: lists every mistake of a configuration, or summarizes it."""

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Annotated, Any

import typer

from notifier.configuration.clients.layer import Layer
from notifier.configuration.clients.registry_checks import find_unsignable
from notifier.configuration.clients.source_reading import DirectReader
from notifier.configuration.configured_feature import reader_builder
from notifier.configuration.inline_senders import find_unlisted_user
from notifier.configuration.loading import LoadedConfiguration, find_shared_keys
from notifier.configuration.provenance import effective_clients_of
from notifier.configuration.secret_files import find_exposed_files, secrets_of
from notifier.feature import FeatureReport
from notifier.features import FEATURES
from notifier.model.durations import DAY_SECONDS
from notifier.model.errors import InputIssue
from notifier.model.front_channel import is_on_page
from notifier.model.ignored_members import IssueGroup, group_issues
from notifier.model.moment import format_moment_for_people
from notifier.model.printable import counted
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

MAX_REASONS = 3  # reasons for left-out rows per source; the warnings have all
_CLIENT_GROUPS = (
    ("by_browser", "told by browsers alone"),
    ("without_uri", "without backchannel_logout_uri, never told"),
    ("paused", "paused"),
)


def check(
    config: Config = None,
    offline: Annotated[
        bool,
        typer.Option(
            "--offline",
            help="Connect to nothing: ask no place of keys and no database of sessions, and take registry sources from"
            " the cache, if there is one.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """List every mistake of a configuration, or sum it up if there is none.

    It reads the configuration, the clients, keys, tokens and secrets, and the certificates of the queue and of the
    listeners, as `run` does, even if a part of it is wrong. It reads each registry source, has each external key sign,
    queries each session database (`upstreams`) with a user that cannot exist, and connects to nothing else
    (`notifier doctor` does). A source, key or database without an answer is a mistake. Without mistakes it shows the
    issuers with their keys, the clients, the queue and the listeners. It warns of secrets that others may read, of
    settings that have no effect, of exchanges that belong to the broker, and if a user cannot be found in the log
    (log.subject_key_file).

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

    def unread() -> list[InputIssue]:
        return [InputIssue(f"registry source {name}", text) for name, text in sources.problems.items()]

    loaded = load_configuration(
        config, FEATURES, as_json=as_json, starting=True, answer_of=sources, list_more_issues=unread
    )
    mistakes = unread()
    if not offline:
        mistakes += [*check_keys(loaded.keys), *find_unsignable(loaded.registry, loaded.build_context.algorithms_of)]
        mistakes += [mistake for feature in FEATURES for mistake in feature.find_remote_issues(loaded)]
    if mistakes:
        exit_with_issues(mistakes, as_json=as_json)
    of_features = [feature.report(loaded) for feature in FEATURES]
    summary = _summarize(loaded, sources, of_features)
    if as_json:
        say_json({"mistakes": [], **summary}, indent=2)
    else:
        say(_format_summary(summary, of_features))


def _summarize(
    loaded: LoadedConfiguration, sources: DirectReader, of_features: Sequence[FeatureReport]
) -> dict[str, Any]:
    settings, registry = loaded.settings, loaded.registry
    known = (*find_shared_keys(settings, loaded.keys), *loaded.warnings)
    warnings = (*known, *(warning for of in of_features for warning in of.warnings), *_list_unsigned(loaded))
    warnings = (*warnings, *find_unlisted_user(settings).values())
    issuers = {}
    for iss in settings.issuers:
        clients = registry.clients_of(iss).values()
        issuers[iss] = {
            "keys": [_summarize_key(key) for key in loaded.keys.keys_of(iss)],
            "keys_not_asked": [
                key.external_key.name
                for of, key in loaded.keys.external_keys()
                if of == iss and key.external_key.half is None
            ],
            "clients": len(clients),
            "without_uri": sum(client.logout_uri is None and not is_on_page(client) for client in clients),
            "by_browser": sum(client.logout_uri is None and is_on_page(client) for client in clients),
            "paused": sum(client.paused for client in clients),
        }
    return {
        "issuers": issuers,
        "warnings": [
            {"path": secret.setting, "text": f"{secret.text}: {secret.advice}"}
            for secret in find_exposed_files(secrets_of(settings, registry, loaded.parts))
        ]
        + _check_subject_key(settings)
        + [{"path": warning.path, "text": warning.text} for warning in warnings]
        + [_summarize_group(group) for group in (*group_issues(loaded.faults), *registry.ignored_groups())],
        "registry": [
            {**_summarize_source(layer, loaded), "cached": layer.name in sources.cached} for layer in loaded.layers
        ],
        **{name: member for of in of_features for name, member in of.members.items()},
        "queue": {"url": redact_urls(settings.queue), "prefix": settings.queue.prefix},
        "listeners": {
            "ops": str(settings.ops.listen),
            "api": None if settings.api is None else str(settings.api.listen),
            "web": None if settings.web is None else str(settings.web.listen),
        },
    }


def _summarize_source(layer: Layer, loaded: LoadedConfiguration) -> dict[str, Any]:
    """Return the number of served clients and left-out rows of a registry source, with the first reasons.

    A mistake in a file is not counted: the configuration is refused.
    """
    if layer.file is not None:
        return {"source": layer.name, "clients": len(layer.rows), "left_out": 0, "why": []}
    served = effective_clients_of(loaded, layer)
    why = [
        {"text": group.first[0].text, "count": group.count}
        for group in islice(group_issues(served.faults), MAX_REASONS)
    ]
    return {"source": layer.name, "clients": served.clients, "left_out": served.left_out, "why": why}


def _summarize_group(group: IssueGroup) -> dict[str, Any]:
    """Return a warning that may concern very many clients: their `count`, and the paths of the `first`."""
    mistake = group.mistake
    return {
        "path": mistake.path,
        "text": mistake.text,
        "count": group.count,
        "first": [example.path for example in group.first],
    }


def _summarize_key(key: SigningKey) -> dict[str, Any]:
    """Return a key. `not_before` only if in the future; `first_day_until` only if it signs within its first day."""
    now = time.time()
    begins = now if key.not_before is None else max(key.not_before, now)
    known = None if key.made_at is None else key.made_at + DAY_SECONDS
    return {
        "kid": key.kid,
        "algorithms": sorted(key.algorithms),
        "not_before": format_moment_for_people(begins) if begins > now else None,
        "first_day_until": format_moment_for_people(known) if known is not None and known > begins else None,
    }


def _list_unsigned(loaded: LoadedConfiguration) -> Iterator[InputIssue]:
    """Yield the issuers without a key that signs now."""
    for iss in loaded.settings.issuers:
        moments = [key.not_before for key in loaded.keys.keys_of(iss)]
        due = [moment for moment in moments if moment is not None and moment > time.time()]
        if due and len(due) == len(moments):
            text = f"no key signs before {format_moment_for_people(min(due))}: until then its events wait"
            yield InputIssue(f'issuers["{iss}"].keys', text)


def _check_subject_key(settings: Settings) -> list[dict[str, str]]:
    if not is_subject_key_missing(settings):
        short = find_short_key(settings)
        return [] if short is None else [{"path": short.path, "text": short.text}]
    text = "is not set: each worker hashes users with a random key, so a user's logouts cannot be found in the log"
    return [{"path": "log.subject_key_file", "text": f"{text}: {CREATE_COMMAND}"}]


def _format_times(count: int) -> str:
    return f" ({count:,})" if count > 1 else ""


def _format_summary(summary: dict[str, Any], of_features: Sequence[FeatureReport]) -> str:
    lines = ["no mistakes", *(f"warning: {warning['path']}: {warning['text']}" for warning in summary["warnings"])]
    for iss, issuer in summary["issuers"].items():
        lines.append(f"issuer {iss}")
        for key in issuer["keys"]:
            later = f", from {key['not_before']} on" if key["not_before"] is not None else ""
            lines.append(f"  key {key['kid']}: {', '.join(key['algorithms'])}{later}")
            if (until := key["first_day_until"]) is not None:
                lines.append(f"    it is new: receivers that keep the issuer's keys may refuse it until {until}")
        lines += [f"  key {name}: not asked, as --offline wants" for name in issuer["keys_not_asked"]]
        notes = [f"{issuer[name]} {text}" for name, text in _CLIENT_GROUPS if issuer[name]]
        aside = f" ({'; '.join(notes)})" if notes else ""
        lines.append(f"  {counted(issuer['clients'], 'client')}{aside}")
    for source in summary["registry"]:
        notes = ["from the cache"] if source["cached"] else []
        if source["left_out"]:
            why = [f"{reason['text']}{_format_times(reason['count'])}" for reason in source["why"]]
            if sum(reason["count"] for reason in source["why"]) < source["left_out"]:
                why.append("for the others see the warnings")
            notes.append(f"{source['left_out']:,} left out: {'; '.join(why)}")
        aside = f" ({'; '.join(notes)})" if notes else ""
        lines.append(f"registry source {source['source']}: {counted(source['clients'], 'client')}{aside}")
    lines += [line for of in of_features for line in of.lines]
    lines.append(f"queue {', '.join(summary['queue']['url'])}")
    lines += [f"{name} listens on {where}" for name, where in summary["listeners"].items() if where is not None]
    return "\n".join(lines)
