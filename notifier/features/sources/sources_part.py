"""Read the configuration of sources: the compiled mappings, the secrets of senders, errors and warnings."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ValidationError

from notifier.configuration.configured_feature import FeaturePart
from notifier.configuration.inline_senders import Sender
from notifier.configuration.loading import LoadedConfiguration
from notifier.feature import FeatureReport
from notifier.features.sources.expressions import EvaluationError, Expression, ExpressionReader
from notifier.features.sources.source import Source
from notifier.features.sources.source_compiler import compile_sources
from notifier.features.sources.source_settings import (
    BindSettings,
    SourceSettings,
    bindings_of,
    sources_of,
    warn_open_exchanges,
)
from notifier.model.errors import ConfigurationError, InputIssue
from notifier.model.message import Binding
from notifier.model.registry import Registry
from notifier.settings.input_issues import explain
from notifier.settings.secret_text import read_text
from notifier.settings.service_settings import Settings, SourceName

MAX_SECRETS = 2  # of a source: the current one, and a second one while it is replaced


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcesPart(FeaturePart):
    """The valid sources by name. `proofs`: the secrets that authenticate the senders of each."""

    sources: Mapping[str, Source]
    proofs: Mapping[str, tuple[bytes, ...]] = field(repr=False)


def read_sources(settings: Settings, _registry: Registry, invalid_sections: frozenset[str]) -> SourcesPart:
    """Return the sources and every error. `invalid_sections`: the sections of the settings with errors."""
    sources, mistakes = compile_sources(settings, invalid_sections)
    options = sources_of(settings)
    proofs, secret_mistakes = read_source_secrets(options)
    return SourcesPart(
        mistakes=[*secret_mistakes, *mistakes],
        warnings=[
            *_warn_signed_bodies(settings, sources),
            *_warn_any_topic(settings),
            *_warn_okta_actor(sources),
            *_warn_no_listener(settings),
        ],
        secrets=dict(_secret_files(settings)),
        fixed={f"sources.{name}.bind": frozenset(source.bind) for name, source in options.items() if source.bind},
        bindings=bindings_of(options),
        senders=[_to_sender(source, authenticated=options[name].http is not None) for name, source in sources.items()],
        sources=sources,
        proofs=proofs,
    )


def report_sources(loaded: LoadedConfiguration) -> FeatureReport:
    """Return the issuers of each source, for `notifier check`."""
    speakers = {name: list(source.speaks_for) for name, source in loaded.part(SourcesPart).sources.items()}
    return FeatureReport(
        members={"sources": {name: {"speaks_for": issuers} for name, issuers in speakers.items()}},
        lines=[f"source {name}: may end sessions at {', '.join(issuers)}" for name, issuers in speakers.items()],
        warnings=warn_open_exchanges(sources_of(loaded.settings)),
    )


class _SourceBindings(BaseModel):
    """The bindings of a source, in a document that is not validated as settings."""

    bind: tuple[BindSettings, ...] = ()


class _SourcesSection(BaseModel):
    """The bindings of all sources. Other members are ignored."""

    sources: dict[SourceName, _SourceBindings] = {}


def bindings_in_document(document: Mapping[str, object]) -> tuple[Binding, ...]:
    """Return the bindings of the queues of sources, without reading the files that sources name.

    Raises ConfigurationError.
    """
    try:
        return bindings_of(_SourcesSection.model_validate(document).sources)
    except ValidationError as error:
        raise ConfigurationError(explain(error, Settings)) from None


def _to_sender(source: Source, *, authenticated: bool) -> Sender:
    """Return the source as a sender, for the warnings about addresses in events (`registry.inline`)."""
    return Sender(
        name=source.name, title=f"source {source.name}", issuers=source.speaks_for, authenticated=authenticated,
        has_addresses=names_addresses(source),
    )  # fmt: skip


def names_addresses(source: Source) -> bool:
    """Return whether the events of a source have addresses of clients."""
    clients = source.members.get("clients")
    return clients is not None and "backchannel_logout_uri" in clients.text


def _secret_files(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Yield each setting of a secret file, and the file."""
    for name, source in sources_of(settings).items():
        secret_file = find_secret_file(source)
        if secret_file is not None:
            member, path = secret_file
            yield f"sources.{name}.http.{member}", path
        tls = None if source.http is None or source.http.set is None else source.http.set.tls
        if tls is not None and tls.key_file is not None:
            yield f"sources.{name}.http.set.tls.key_file", tls.key_file


def _warn_signed_bodies(settings: Settings, sources: Mapping[str, Source]) -> Iterator[InputIssue]:
    """Yield warnings about signed bodies: sources that read unsigned headers, and bodies that `event_types` refuses."""
    for name, source in sources.items():
        http = sources_of(settings)[name].http
        if http is None or not http.signed:
            continue
        if "$headers" in source.used_names:
            text = "reads $headers, which are not signed: whoever captures a body may send it again with others"
            yield InputIssue(f"sources.{name}", text)
        if http.hmac is not None:
            continue
        member, bodies = ("sns", "messages of SNS") if http.set is None else ("set", "Security Event Tokens")
        for iss in source.speaks_for:
            if iss in source.types:  # event_types requires one of these CloudEvents types
                text = f'{bodies} have no CloudEvents type: all are refused by issuers["{iss}"].event_types'
                yield InputIssue(f"sources.{name}.http.{member}", text)


def _warn_any_topic(settings: Settings) -> Iterator[InputIssue]:
    """Yield a warning for each source that confirms a WebSub subscription to any topic."""
    for name, source in sources_of(settings).items():
        has_http_only = source.http is not None and source.http.websub is None
        if source.preset == "wso2" and has_http_only:
            text = (
                "a subscription with any topic is confirmed, without a proof: write"
                " websub: {topic: …} with the topic of your webhook (the log shows it as sender_allowed)"
            )
            yield InputIssue(f"sources.{name}.http", text)


_OKTA_NAMES = frozenset({"alternateId", "externalSessionId"})  # which only Okta's events have
_OKTA_TYPES = ("user.session.end", "user.session.clear", "user.lifecycle.suspend", "user.lifecycle.deactivate")
_ACTOR = "who acts"


def _warn_okta_actor(sources: Mapping[str, Source]) -> Iterator[InputIssue]:
    """Yield a warning for each member that takes who caused an event of Okta for the user whom the event is about."""
    for name, source in sources.items():
        expressions = [*source.members.values(), *([] if source.when is None else [source.when])]
        is_of_okta = source.preset == "okta_hook" or any(
            "user.session." in each.text or "user.lifecycle." in each.text or each.fields & _OKTA_NAMES
            for each in expressions
        )
        for member in ("sub", "sid", "email") if is_of_okta else ():
            expression = source.members.get(member)
            if expression is not None and _takes_okta_actor(expression, source.when):
                text = (
                    "is that of `actor`, who may be an administrator or Okta itself: the user is target[?type=='User'],"
                    " if there is one; remove it, or see docs/identity-servers/okta.md"
                )
                yield InputIssue(f"sources.{name}.event.{member}", text)


def _takes_okta_actor(expression: Expression, when: Expression | None) -> bool:
    """Return True if the expression takes the actor of an event in which an administrator acts on another user.

    The user may have no id. Only events that `when` selects count, or all if it selects none of these.
    """
    readers = [ExpressionReader(_to_okta_event(kind, user)) for kind in _OKTA_TYPES for user in ("a user", None)]
    selected = [each for each in readers if when is not None and _evaluate(each, when)]
    return any(_ACTOR in str(_evaluate(each, expression)) for each in selected or readers)


def _to_okta_event(kind: str, user: str | None) -> dict[str, object]:
    """Return an event of Okta, with itself in the places where a source without an envelope seeks it."""
    names = ("id", "alternateId", "displayName", "login")
    event = {
        "eventType": kind,
        "outcome": {"result": "SUCCESS"},
        "actor": {"type": "User", **dict.fromkeys(names, _ACTOR)},
        "target": [{"type": "User", **dict.fromkeys(names if user else (), user)}],
        "authenticationContext": {"externalSessionId": _ACTOR},
    }
    return {**event, "detail": event, "data": {"events": [event]}}


def _evaluate(reader: ExpressionReader, expression: Expression) -> object:
    """Return the value of the expression; None if it fails."""
    try:
        return reader.evaluate(expression)
    except EvaluationError:
        return None


def _warn_no_listener(settings: Settings) -> Iterator[InputIssue]:
    """Yield a warning for each source with `http`, if the API listener is not configured."""
    if settings.api is None:
        text = "has no effect without a section `api`, which opens the listener"
        for name, source in sources_of(settings).items():
            if source.http is not None:
                yield InputIssue(f"sources.{name}.http", text)


# A file with `Bearer` alone results from `echo "Bearer $TOKEN"` with an empty variable.
_SCHEMES = frozenset((b"bearer", b"basic", b"token", b"apikey"))


def find_secret_file(source: SourceSettings) -> tuple[str, Path] | None:
    """Return the member below `http` that names the file of secrets, and the file; None if the proof has no secret."""
    http = source.http
    if http is not None and http.value_file is not None:
        return "value_file", http.value_file
    if http is not None and http.hmac is not None:
        return "hmac.secret_file", http.hmac.secret_file
    return None


def read_source_secrets(sources: Mapping[str, SourceSettings]) -> tuple[dict[str, tuple[bytes, ...]], list[InputIssue]]:
    """Return the secrets of each source by its name, and all errors. A file has one secret per line."""
    secrets: dict[str, tuple[bytes, ...]] = {}
    mistakes: list[InputIssue] = []
    for name, source in sources.items():
        secret_file = find_secret_file(source)
        if secret_file is None:
            continue
        member, path = secret_file
        setting = f"sources.{name}.http.{member}"
        try:
            text = read_text(path)
        except ConfigurationError as error:
            mistakes += [InputIssue(setting, f"{path} {mistake.text}") for mistake in error.mistakes]
            continue
        values = tuple(line.strip().encode() for line in text.splitlines() if line.strip())
        if not values:
            mistakes.append(InputIssue(setting, f"{path} is empty; write the secret into it"))
        elif not _SCHEMES.isdisjoint(value.lower() for value in values):
            mistakes.append(
                InputIssue(setting, f"{path} has a scheme without a secret behind it, such as Bearer alone")
            )
        elif len(values) > MAX_SECRETS:
            text = f"{path} has {len(values)} lines; write the secret, and a second one while you replace it"
            mistakes.append(InputIssue(setting, text))
        else:
            secrets[name] = values
    return secrets, mistakes
