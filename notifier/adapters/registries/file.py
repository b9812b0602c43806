"""Reads the clients file into a registry: metadata, presets and the service's defaults become clients.

It is made for 100,000 clients. Each is validated on its own, so that one mistake neither hides nor slows the others.
Values that a client does not set are shared with all others.
"""

import gc
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from notifier.adapters.configuration.document_files import read_document
from notifier.adapters.configuration.mistakes import explain, path_of
from notifier.domain.client import Algorithm, Client, ResponsePolicy, RetryPolicy, Route, SubjectMode, TokenProfile
from notifier.domain.egress import check_uri, uri_mistake
from notifier.domain.errors import ConfigurationError, Mistake
from notifier.domain.presets import PRESETS, Preset
from notifier.domain.registry import Issuer, Registry
from notifier.settings.clients import ClientMetadata, ClientOptions
from notifier.settings.policies import hold_mistake, overridden
from notifier.settings.service import Settings

_Asked = tuple[Algorithm | None, str | None, SubjectMode | None, float | None, str | None]
_Tokens = dict[_Asked, TokenProfile]

_NO_OPTIONS = ClientOptions()
_NO_PRESET = Preset(why="")
_KNOWN = frozenset(ClientMetadata.model_fields)
MANY = 50_000  # objects that a search for cycles takes more than a few milliseconds over


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRegistry:
    """The registry, every file that was read or named (to be watched), and the mistakes."""

    registry: Registry
    files: frozenset[Path]
    mistakes: tuple[Mistake, ...] = ()


def load_registry(settings: Settings, base: Path | None = None) -> Registry:
    """Read the registered clients. Raises ConfigurationError with every mistake.

    A relative `registry.file` is relative to `base`. Settings from a file have the full path.
    """
    read = read_registry(settings, base)
    if read.mistakes:
        raise ConfigurationError(read.mistakes)
    return read.registry


def read_registry(
    settings: Settings,
    base: Path | None = None,
    named: set[Path] | None = None,
    unsure: frozenset[str] = frozenset(),
) -> ReadRegistry:
    """Read the clients that are right, and every mistake. Adds the files to `named`.

    Values that depend on an `unsure` section of the settings are not mistakes.
    """
    issuers = {
        iss: Issuer(iss=iss, publishers=issuer.publishers, event_types=issuer.event_types)
        for iss, issuer in settings.issuers.items()
    }
    reading = _Reading(settings, set() if named is None else named, unsure)
    if settings.registry.file is not None:
        path = settings.registry.file if base is None else base / settings.registry.file
        with _no_collections():
            try:
                reading.read(path.absolute())
            except ConfigurationError as error:
                reading.mistakes += error.mistakes
    registry = Registry(
        issuers=MappingProxyType(issuers),
        clients=MappingProxyType({iss: MappingProxyType(clients) for iss, clients in reading.clients.items()}),
        inline_allowed=settings.registry.inline == "allow",
        grace=settings.registry.grace,
        unregistered=reading.template,
    )
    return ReadRegistry(registry=registry, files=frozenset(reading.files), mistakes=tuple(reading.mistakes))


@contextmanager
def _no_collections() -> Iterator[None]:
    """Millions of objects are made and none is garbage: to look for cycles among them takes a third of the time.

    Where there are many, they are left out of later looks too, before the first of those: it would hold the loop of a
    worker for 100 ms.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if gc.get_count()[0] > MANY:
            gc.freeze()
        if enabled:
            gc.enable()


class _Reading:
    """One reading of one file: what was made of it so far, and what was wrong."""

    def __init__(self, settings: Settings, files: set[Path], unsure: frozenset[str]) -> None:
        self.template = settings.template()
        self.clients: dict[str, dict[str, Client]] = {iss: {} for iss in settings.issuers}
        self.files = files
        self._slot_wait = settings.delivery.slot_wait
        self._issuers = tuple(settings.issuers)
        self._tokens: _Tokens = {}
        self._unsure = unsure
        self.mistakes: list[Mistake] = []
        self._places: dict[tuple[str, str], str] = {}

    def read(self, path: Path) -> None:
        """Every client of the file. Raises ConfigurationError where it is no list of them."""
        self.files.add(path)
        document = read_document(path)
        if not isinstance(document, list):
            empty = "is empty; write [] if there are no clients" if document is None else "must be a list of clients"
            raise ConfigurationError([Mistake(path.name, empty)])
        context = {"base": path.parent, "files": self.files}
        for index, raw in enumerate(document):
            self._one(raw, f"{path.name}[{index}]", context)
            document[index] = None  # all of them at the end would be one step, which nothing else can run beside

    def _one(self, raw: object, place: str, context: dict[str, Any]) -> None:
        if isinstance(raw, dict):
            for name in raw.keys() - _KNOWN:
                meant = _meant(str(name))
                if meant is not None:
                    text = f"is no client metadata that matters here; did you mean {meant}?"
                    self.mistakes.append(Mistake(path_of([str(name)], place), text))
        try:
            metadata = ClientMetadata.model_validate(raw, context=context)
        except ValidationError as error:
            self.mistakes += explain(error, ClientMetadata, place)
            if isinstance(raw, dict):
                self._look_further(raw, {detail["loc"][0] for detail in error.errors() if detail["loc"]}, place)
            return
        issuers = self._issuers_of(metadata, place)
        client = _client(issuers[0] if issuers else "", metadata, self.template, self._tokens)
        self.mistakes += [Mistake(f"{place}.{key}", text) for key, text in self._wrong(client)]
        self._take_place(metadata.client_id, issuers, place)
        for iss in issuers:
            self.clients[iss][client.client_id] = client if iss == client.iss else replace(client, iss=iss)

    def _look_further(self, raw: dict[str, Any], wrong: Collection[int | str], place: str) -> None:
        """What else is wrong with a client of which these members are: what rests on none of them."""
        uri = raw.get("backchannel_logout_uri")
        text = uri_mistake(uri) if isinstance(uri, str) else None
        if text is not None:
            self.mistakes.append(Mistake(f"{place}.backchannel_logout_uri", text))
        if "issuer" not in wrong:
            client_id = "?" if "client_id" in wrong else raw["client_id"]
            issuers = self._issuers_of(ClientMetadata(client_id=client_id, issuer=raw.get("issuer")), place)
            if "client_id" not in wrong:
                self._take_place(client_id, issuers, place)

    def _take_place(self, client_id: str, issuers: Iterable[str], place: str) -> None:
        """The first of that name at the issuer has it."""
        for iss in issuers:
            first = self._places.setdefault((iss, client_id), place)
            if first is not place:
                text = f"{client_id!r} of {iss} is there already, at {first}"
                self.mistakes.append(Mistake(f"{place}.client_id", text))

    def _wrong(self, client: Client) -> Iterator[tuple[str, str]]:
        """What the parts of a client together make wrong, by the key to change."""
        uri = client.backchannel_logout_uri
        if uri is not None:
            text = uri_mistake(uri) if "egress" in self._unsure else check_uri(uri, client.route.egress)
            if text is not None:
                yield "backchannel_logout_uri", text
        if client.backchannel_logout_session_required and client.token.subject is SubjectMode.SUB:
            yield "notifier.subject", "is sub, but backchannel_logout_session_required asks for a sid in each token"
        if "delivery" in self._unsure:
            return
        text = hold_mistake(client.timeout, self._slot_wait)
        if text is not None:
            yield "notifier.timeout", text
        if client.retry.base > client.retry.max_delay:
            yield "notifier.retry", "base must not be longer than max_delay"

    def _issuers_of(self, metadata: ClientMetadata, place: str) -> tuple[str, ...]:
        if metadata.issuer == ("*",):
            return self._issuers
        if metadata.issuer is None:
            if "issuers" in self._unsure:
                return ()
            if len(self._issuers) != 1:
                text = f"is required, since there are {len(self._issuers)} issuers"
                self.mistakes.append(Mistake(f"{place}.issuer", text))
                return ()
            return self._issuers
        unknown = [iss for iss in metadata.issuer if iss not in self.clients]
        if "issuers" in self._unsure:
            unknown = [iss for iss in unknown if iss == "*"]
        for iss in unknown:
            near = max(self._issuers, key=lambda known: SequenceMatcher(None, iss, known).ratio(), default=None)
            hint = f"; did you mean {near}?" if near is not None else "; there are none"
            text = (
                '"*" stands alone, without other issuers beside it' if iss == "*" else f"{iss} is none of issuers{hint}"
            )
            self.mistakes.append(Mistake(f"{place}.issuer", text))
        return tuple(dict.fromkeys(iss for iss in metadata.issuer if iss in self.clients))


@lru_cache(maxsize=1024)
def _meant(name: str) -> str | None:
    """The member that a name nearly is: ignored like other metadata, it would leave a client untold without a word."""
    plain = name.lower().replace("_", "").replace("-", "")
    for known in _KNOWN:
        if SequenceMatcher(None, plain, known.replace("_", "")).ratio() > 0.9:
            return known
    return None


def _client(iss: str, metadata: ClientMetadata, template: Client, tokens: _Tokens) -> Client:
    """The client: what it sets itself, else its preset, else the service's defaults."""
    options = metadata.notifier or _NO_OPTIONS
    return Client(
        iss=iss,
        client_id=metadata.client_id,
        backchannel_logout_uri=metadata.backchannel_logout_uri,
        backchannel_logout_session_required=bool(metadata.backchannel_logout_session_required),
        pairwise=metadata.subject_type == "pairwise",
        preset=options.preset,
        paused=options.paused,
        timeout=template.timeout if options.timeout is None else options.timeout,
        max_concurrent=template.max_concurrent if options.max_concurrent is None else options.max_concurrent,
        per_second=options.per_second,
        token=_token(metadata.id_token_signed_response_alg, options, tokens),
        retry=_retry(options, template.retry),
        circuit=overridden(template.circuit, options.circuit),
        response=_response(options, template.response),
        route=_route(options, template.route),
    )


def _token(alg: Algorithm | None, options: ClientOptions, shared: _Tokens) -> TokenProfile:
    preset = _NO_PRESET if options.preset is None else PRESETS[options.preset]
    asked = (alg, options.typ or preset.typ, options.subject or preset.subject, options.lifetime, options.reason_claim)
    profile = shared.get(asked)
    if profile is None:
        default = TokenProfile()
        alg, typ, subject, lifetime, reason_claim = asked
        profile = shared[asked] = TokenProfile(
            alg=alg or default.alg,
            typ=default.typ if typ is None else None if typ == "none" else typ,
            subject=subject or default.subject,
            lifetime=lifetime or default.lifetime,
            reason_claim=reason_claim,
        )
    return replace(profile, claims=MappingProxyType(options.claims)) if options.claims else profile


def _retry(options: ClientOptions, default: RetryPolicy) -> RetryPolicy:
    policy = overridden(default, options.retry)
    if options.max_age is not None:
        policy = replace(policy, max_age=options.max_age)
    if options.sub_only_max_age is not None:
        policy = replace(policy, sub_only_max_age=options.sub_only_max_age)
    return policy


def _response(options: ClientOptions, default: ResponsePolicy) -> ResponsePolicy:
    if not options.success_statuses and not options.retry_statuses:
        return default
    return ResponsePolicy(
        success_statuses=options.success_statuses or frozenset(), retry_statuses=options.retry_statuses or frozenset()
    )


def _route(options: ClientOptions, default: Route) -> Route:
    if options.egress is None and options.tls is None and options.proxy is None and not options.headers:
        return default
    return Route(
        egress=overridden(default.egress, options.egress),
        tls=default.tls if options.tls is None else options.tls.files(),
        proxy=options.proxy,
        headers=tuple((options.headers or {}).items()),
    )
