"""Compile the sources of the settings: resolve presets, compile expressions, and list all errors at once."""

import re
from collections.abc import Collection, Mapping
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
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")  # an envelope is a name or an expression


def compile_sources(
    settings: Settings, invalid_sections: frozenset[str] = frozenset()
) -> tuple[Mapping[str, Source], list[InputIssue]]:
    """Return the valid sources by name, and all errors. `invalid_sections`: sections of the settings with an error."""
    sources: dict[str, Source] = {}
    mistakes: list[InputIssue] = []
    configured = None if "issuers" in invalid_sections else tuple(settings.issuers)
    types = {iss: issuer.event_types for iss, issuer in settings.issuers.items() if issuer.event_types is not None}
    uses_sqlite = "queue" not in invalid_sections and settings.queue.sqlite_file is not None
    for name, options in sources_of(settings).items():
        compiler = _SourceCompiler(name, options, configured)
        if uses_sqlite and options.bind:
            text = "needs RabbitMQ: the SQLite queue has no exchanges; remove it, or change queue.url"
            compiler.add_error("bind", text)
        if "queue" not in invalid_sections:
            compiler.check_bindings({f"{settings.queue.prefix}.{exchange}" for exchange in OWN_EXCHANGES})
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
    """Compiles one source, and records its errors. `issuers`: the configured issuers; None if they have errors.

    `ignore_case`: the source ignores case and `_` in names. `used_names`: all names in its expressions.
    """

    name: str
    options: SourceSettings
    issuers: tuple[str, ...] | None
    mistakes: list[InputIssue] = field(default_factory=list)
    used_names: set[str] = field(default_factory=set)
    ignore_case: bool = False

    def add_error(self, member: str, text: str) -> None:
        """Record an error in a setting of the source."""
        self.mistakes.append(InputIssue(f"sources.{self.name}.{member}", text))

    def check_bindings(self, own_exchanges: Collection[str]) -> None:
        """Record an error for each binding to one of notifier's own exchanges."""
        for index, bind in enumerate(self.options.bind):
            if bind.exchange in own_exchanges:
                text = f"{bind.exchange} is an exchange of notifier's own: its events would be read twice; remove it"
                self.add_error(f"bind[{index}].exchange", text)

    def compile(self) -> Source:
        """Return the source. It must not be used if errors were recorded."""
        options, preset = self.options, self._find_preset()
        self.ignore_case = preset.ignore_case if options.ignore_case is None else options.ignore_case
        envelopes = preset.envelope if options.envelope is None else options.envelope
        compiled_envelopes = [self._compile_envelope(index, text) for index, text in enumerate(envelopes)]
        when = preset.when if options.when is None else options.when
        members = self._compile_members(preset)
        realm = self._compile_realm(preset, members)
        self._check_issuers()
        proofs = [options.http, options.http.hmac] if options.http is not None else []
        proof_headers = [proof.header for proof in proofs if proof is not None and proof.header is not None]
        return Source(
            name=self.name,
            preset=options.preset,
            issuer=self._find_issuer(),
            issuers=options.issuers,
            realm=realm,
            envelopes=tuple(envelope for envelope in compiled_envelopes if envelope is not None),
            lines=bool(envelopes) and envelopes[0] == LINES,
            as_json=options.content_type is not None,
            ignore_case=self.ignore_case,
            when=None if when is None else self._compile_expression("when", when),
            members=MappingProxyType(members),
            secret_headers=frozenset(header.lower() for header in proof_headers),
            used_names=frozenset(self.used_names),
        )

    def _find_preset(self) -> SourcePreset:
        """Return the configured preset. Record an error and return an empty preset for an unknown name."""
        if self.options.preset is None:
            return _NO_PRESET
        preset = SOURCE_PRESETS.get(self.options.preset)
        if preset is not None:
            return preset
        hint = suggest(self.options.preset.lower(), SOURCE_PRESETS)
        self.add_error("preset", f"there is no preset {excerpt(self.options.preset)}; {hint}")
        return _NO_PRESET

    def _compile_members(self, preset: SourcePreset) -> dict[str, Expression]:
        """Return the valid expressions of an event's members: those of the settings, otherwise of the preset."""
        configured = self.options.event or {}
        for name in configured.keys() - set(_EVENT_MEMBERS):
            hint = suggest(name.lower(), _EVENT_MEMBERS)
            self.add_error(f"event.{excerpt(name)}", f"there is no such member of an event; {hint}")
        texts = {name: text for name, text in {**preset.event, **configured}.items() if name in _EVENT_MEMBERS}
        is_preset_unknown = self.options.preset is not None and preset is _NO_PRESET
        if not is_preset_unknown:  # otherwise members of the intended preset are missing
            self._check_members(texts)
        expressions = {name: self._compile_expression(f"event.{name}", text) for name, text in texts.items()}
        return {name: expression for name, expression in expressions.items() if expression is not None}

    def _check_members(self, texts: Mapping[str, str]) -> None:
        """Record an error for each missing member, and for `*` as clients, which as an expression does not mean all."""
        if not texts:
            self.add_error("event", f"is required without a preset; presets are {', '.join(SOURCE_PRESETS)}")
            return
        clients = texts.get("clients", "").strip()
        if clients in ("*", '"*"'):
            text = f'{clients} names members of the document; for all clients write "{_ALL_CLIENTS}"'
            self.add_error("event.clients", text)
        elif "clients" not in texts:
            self.add_error("event.clients", f'is required; for all clients of the issuer write "{_ALL_CLIENTS}"')
        if clients == _ALL_CLIENTS and not {"sub", "sid"} & texts.keys():
            self.add_error("event", "needs sub or sid, which identify the ended session")

    def _compile_realm(self, preset: SourcePreset, members: Mapping[str, Expression]) -> Expression | None:
        """Return the expression for what a document calls its issuer, a name that `issuers` or `issuer` translates.

        None if nothing is translated: the event's `iss`, if any, is the issuer itself.
        """
        has_own_iss = "iss" in (self.options.event or {})
        if preset.realm is not None and not has_own_iss:
            return self._compile_expression("event.iss", preset.realm)
        if self.options.issuers is None:
            return None
        if "iss" not in members:
            text = "this preset's documents name no issuer; write `issuer`, or give event.iss"
            if preset is _NO_PRESET:
                text = "needs event.iss, an expression for what a document calls its issuer"
            self.add_error("issuers", text)
        return members.get("iss")

    def _find_issuer(self) -> str | None:
        """Return the setting `issuer`. Without it and `issuers`, return the default; None if there is none.

        The default is the issuer of the source's Security Event Tokens, otherwise the only configured issuer.
        """
        options, configured = self.options, self.issuers or ()
        if options.issuer is not None or options.issuers is not None:
            return options.issuer
        if options.http is not None and options.http.set is not None and options.http.set.issuer in configured:
            return options.http.set.issuer
        return configured[0] if len(configured) == 1 else None

    def _check_issuers(self) -> None:
        """Record an error for a missing issuer, and for each issuer that is not configured."""
        options, configured = self.options, self.issuers
        if configured is None:
            return
        if configured and self._find_issuer() is None and options.issuers is None:
            pairs = ", ".join(f'"{iss}": "{iss}"' for iss in configured)
            count = len(configured)
            text = f"is required, since there are {count} issuers: the one it speaks for, or issuers: {{{pairs}}}"
            self.add_error("issuer", text)
        issuer_of = {} if options.issuer is None else {"issuer": options.issuer}
        issuer_of |= {f"issuers.{name}": iss for name, iss in (options.issuers or {}).items()}
        for member, iss in issuer_of.items():
            if iss not in configured:
                self.add_error(member, explain_unknown_issuer(iss, configured))

    def _compile_envelope(self, index: int, text: str) -> Envelope | None:
        """Return an envelope by its name or by its expression. Record an error and return None if it is neither."""
        member = f"envelope[{index}]"
        if text in ENVELOPES:
            return ENVELOPES[text]
        if text == "nservicebus":
            self.add_error(member, f"nservicebus is gone: remove it, and write event: {{id: {_NSERVICEBUS_ID}}}")
            return None
        if text == LINES and index == 0:
            return EventList(Expression("@"))
        if text == LINES:
            self.add_error(member, "lines must be the first")
            return None
        if _NAME.fullmatch(text) and len(text) > len(LINES):  # a shorter name is rather a member of the document
            similar = get_close_matches(text.lower(), (*ENVELOPES, LINES), n=1, cutoff=0.75)
            if similar:
                self.add_error(member, f"there is no envelope {text}; did you mean {similar[0]}?")
                return None
        expression = self._compile_expression(member, text)
        return None if expression is None else EventList(expression)

    def _compile_expression(self, member: str, text: str) -> Expression | None:
        """Return the expression of a setting; None if it does not compile. Record its errors."""
        try:
            expression = Expression(text)
        except ExpressionError as error:
            self.add_error(member, str(error))
            return None
        name = find_unmatchable_name(expression.parsed) if self.ignore_case else None
        if name is not None:
            name = excerpt(name)
            self.add_error(member, f"no name is {name} with ignore_case; write {normalize_name(name)}")
        self.used_names |= expression.fields
        return expression
