"""Compile the sources of the settings, and list all errors in them at once."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from types import MappingProxyType

from notifier.features.sources.envelopes import ENVELOPES, LINES, Envelope, EventList
from notifier.features.sources.expression_functions import normalize_name
from notifier.features.sources.expressions import Expression, ExpressionError, find_unmatchable_name
from notifier.features.sources.source import Source
from notifier.features.sources.source_presets import SOURCE_PRESETS, SourcePreset
from notifier.features.sources.source_settings import SourceSettings, sources_of
from notifier.model.documents.event_members import EventBody
from notifier.model.errors import InputIssue
from notifier.model.nearest import explain_unknown_issuer, suggest
from notifier.model.printable import excerpt
from notifier.settings.service_settings import Settings

_EVENT_MEMBERS = tuple(EventBody.__annotations__)
OWN_EXCHANGES = ("events", "bulk", "outcomes")
_NO_PRESET = SourcePreset(event=MappingProxyType({}))
_ALL_CLIENTS = "'*'"
_NSERVICEBUS_ID = '\'"$headers"."NServiceBus.MessageId"\''
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def compile_sources(
    settings: Settings, invalid_sections: frozenset[str] = frozenset()
) -> tuple[Mapping[str, Source], list[InputIssue]]:
    """Return the valid sources by name, and every error. `invalid_sections`: sections of the settings with an error."""
    sources: dict[str, Source] = {}
    mistakes: list[InputIssue] = []
    configured = None if "issuers" in invalid_sections else tuple(settings.issuers)
    types = {iss: of.event_types for iss, of in settings.issuers.items() if of.event_types is not None}
    on_disk = "queue" not in invalid_sections and settings.queue.sqlite_file is not None
    for name, options in sources_of(settings).items():
        compiler = _SourceCompiler(name, options, configured)
        if on_disk and options.bind:
            compiler.add_error(
                "bind", "needs RabbitMQ: the SQLite queue has no exchanges; remove it, or change queue.url"
            )
        own_exchanges = {f"{settings.queue.prefix}.{exchange}" for exchange in OWN_EXCHANGES}
        for nth, bind in enumerate(() if "queue" in invalid_sections else options.bind):
            if bind.exchange in own_exchanges:
                text = f"{bind.exchange} is an exchange of notifier's own: its events would be read twice; remove it"
                compiler.add_error(f"bind[{nth}].exchange", text)
        source = compiler.compile()
        if compiler.mistakes:
            mistakes += compiler.mistakes
        elif options.http is not None and options.http.signed:
            sources[name] = replace(source, types=MappingProxyType(types))
        else:
            sources[name] = source
    return MappingProxyType(sources), mistakes


@dataclass(slots=True)
class _SourceCompiler:
    """Compiles one source. `issuers` are the configured ones, None if that section has errors.

    `ignore_case`: the source ignores case and `_` in names.
    """

    name: str
    options: SourceSettings
    issuers: tuple[str, ...] | None
    mistakes: list[InputIssue] = field(default_factory=list)
    used_names: set[str] = field(default_factory=set)
    ignore_case: bool = False

    def add_error(self, member: str, text: str) -> None:
        """Record an error in one of its settings."""
        self.mistakes.append(InputIssue(f"sources.{self.name}.{member}", text))

    def compile(self) -> Source:
        """Return the source; it must not be used if errors were recorded."""
        options, preset = self.options, self._find_preset()
        self.ignore_case = preset.ignore_case if options.ignore_case is None else options.ignore_case
        named = preset.envelope if options.envelope is None else options.envelope
        when = preset.when if options.when is None else options.when
        members = self._compile_members(preset)
        realm = self._compile_realm(preset, members)
        self._check_issuers()
        proofs = () if options.http is None else (options.http.header, options.http.hmac and options.http.hmac.header)
        secret = {header.lower() for header in proofs if header}
        return Source(
            name=self.name,
            preset=options.preset,
            issuer=self._find_issuer(),
            issuers=options.issuers,
            realm=realm,
            envelopes=tuple(filter(None, map(self._compile_envelope, range(len(named)), named))),
            lines=bool(named) and named[0] == LINES,
            as_json=options.content_type is not None,
            ignore_case=self.ignore_case,
            when=None if when is None else self._compile_expression("when", when),
            members=MappingProxyType(members),
            secret_headers=frozenset(secret),
            used_names=frozenset(self.used_names),
        )

    def _find_preset(self) -> SourcePreset:
        if self.options.preset is None:
            return _NO_PRESET
        preset = SOURCE_PRESETS.get(self.options.preset)
        if preset is not None:
            return preset
        hint = suggest(self.options.preset.lower(), SOURCE_PRESETS)
        self.add_error("preset", f"there is no preset {excerpt(self.options.preset)}; {hint}")
        return _NO_PRESET

    def _compile_members(self, preset: SourcePreset) -> dict[str, Expression]:
        of_preset, own = dict(preset.event), self.options.event or {}
        for name in own.keys() - set(_EVENT_MEMBERS):
            hint = suggest(name.lower(), _EVENT_MEMBERS)
            self.add_error(f"event.{excerpt(name)}", f"there is no such member of an event; {hint}")
        texts = {name: text for name, text in {**of_preset, **own}.items() if name in _EVENT_MEMBERS}
        unknown_preset = self.options.preset is not None and preset is _NO_PRESET
        if not unknown_preset:
            self._check_members(texts)
        expressions = {name: self._compile_expression(f"event.{name}", text) for name, text in texts.items()}
        return {name: expression for name, expression in expressions.items() if expression is not None}

    def _check_members(self, texts: Mapping[str, str]) -> None:
        if not texts:
            self.add_error("event", f"is required without a preset; presets are {', '.join(SOURCE_PRESETS)}")
            return
        clients = texts.get("clients", "").strip()
        if clients in ("*", '"*"'):
            self.add_error(
                "event.clients", f'{clients} names members of the document; for all clients write "{_ALL_CLIENTS}"'
            )
        elif not clients and "clients" not in texts:
            self.add_error("event.clients", f'is required; for all clients of the issuer write "{_ALL_CLIENTS}"')
        if clients == _ALL_CLIENTS and not {"sub", "sid"} & texts.keys():
            self.add_error("event", "needs sub or sid, which identify the ended session")

    def _compile_realm(self, preset: SourcePreset, members: Mapping[str, Expression]) -> Expression | None:
        """Return the expression for the document's name of its issuer, if that is not `iss`."""
        if self.options.issuers is None:
            own = "iss" in (self.options.event or {})
            return None if own or preset.realm is None else self._compile_expression("event.iss", preset.realm)
        own = self.options.event is not None and "iss" in self.options.event
        if preset.realm is not None and not own:
            return self._compile_expression("event.iss", preset.realm)
        if "iss" not in members and preset.event is not _NO_PRESET.event:
            self.add_error("issuers", "this preset's documents name no issuer; write `issuer`, or give event.iss")
        elif "iss" not in members:
            self.add_error("issuers", "needs event.iss, an expression for what a document calls its issuer")
        return members.get("iss")

    def _find_issuer(self) -> str | None:
        """Return the source's issuer; by default that of its Security Event Tokens, or the only one configured."""
        options, configured = self.options, self.issuers or ()
        if options.issuer is not None or options.issuers is not None:
            return options.issuer
        if options.http is not None and options.http.set is not None and options.http.set.issuer in configured:
            return options.http.set.issuer
        return configured[0] if len(configured) == 1 else None

    def _check_issuers(self) -> None:
        options = self.options
        if self.issuers and self._find_issuer() is None and options.issuers is None:
            pairs = ", ".join(f'"{iss}": "{iss}"' for iss in self.issuers)
            count = len(self.issuers)
            text = f"is required, since there are {count} issuers: the one it speaks for, or issuers: {{{pairs}}}"
            self.add_error("issuer", text)
        places = {} if options.issuer is None else {"issuer": options.issuer}
        places |= {f"issuers.{name}": iss for name, iss in (options.issuers or {}).items()}
        for place, iss in places.items():
            if self.issuers is not None and iss not in self.issuers:
                self.add_error(place, explain_unknown_issuer(iss, self.issuers))

    def _compile_envelope(self, number: int, text: str) -> Envelope | None:
        place = f"envelope[{number}]"
        if text in ENVELOPES:
            return ENVELOPES[text]
        if text == "nservicebus":
            self.add_error(place, f"nservicebus is gone: remove it, and write event: {{id: {_NSERVICEBUS_ID}}}")
            return None
        if text == LINES and number == 0:
            return EventList(Expression("@"))
        if text == LINES:
            self.add_error(place, "lines must be the first")
            return None
        near = get_close_matches(text.lower(), (*ENVELOPES, LINES), n=1, cutoff=0.75) if _NAME.fullmatch(text) else []
        if near and len(text) > len(LINES):
            self.add_error(place, f"there is no envelope {text}; did you mean {near[0]}?")
            return None
        expression = self._compile_expression(place, text)
        return None if expression is None else EventList(expression)

    def _compile_expression(self, place: str, text: str) -> Expression | None:
        try:
            expression = Expression(text)
        except ExpressionError as no:
            self.add_error(place, str(no))
            return None
        if self.ignore_case and (name := find_unmatchable_name(expression.parsed)) is not None:
            self.add_error(place, f"no name is {excerpt(name)} with ignore_case; write {normalize_name(excerpt(name))}")
        self.used_names |= expression.fields
        return expression
