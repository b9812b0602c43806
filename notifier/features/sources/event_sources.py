"""Compile the sources of the settings, and list all errors in them at once."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from types import MappingProxyType

from notifier.features.sources.envelopes import ENVELOPES, LINES, Envelope, EventList
from notifier.features.sources.expression_functions import plain_name
from notifier.features.sources.expressions import Expression, NoExpression, unplain_name
from notifier.features.sources.source import Source
from notifier.features.sources.source_presets import SOURCE_PRESETS, SourcePreset
from notifier.features.sources.source_settings import SourceSettings, sources_of
from notifier.model.documents.event_members import EventBody
from notifier.model.errors import InputIssue
from notifier.model.printable import excerpt
from notifier.settings.service_settings import Settings

_MEMBERS = tuple(EventBody.__annotations__)
OWN_EXCHANGES = ("events", "bulk", "outcomes")
_OWN = SourcePreset(server="", ids="", event=MappingProxyType({}))
_ALL = "'*'"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def compile_sources(
    settings: Settings, unsure: frozenset[str] = frozenset()
) -> tuple[Mapping[str, Source], list[InputIssue]]:
    """Return the valid sources by name, and every error. `unsure`: the sections of the settings with errors."""
    sources: dict[str, Source] = {}
    mistakes: list[InputIssue] = []
    known = None if "issuers" in unsure else tuple(settings.issuers)
    types = {iss: of.event_types for iss, of in settings.issuers.items() if of.event_types is not None}
    on_disk = "queue" not in unsure and settings.queue.sqlite_file is not None
    for name, options in sources_of(settings).items():
        making = _Making(name, options, known)
        if on_disk and options.bind:
            making.wrong("bind", "needs RabbitMQ: the SQLite queue has no exchanges; remove it, or change queue.url")
        own_exchanges = {f"{settings.queue.prefix}.{exchange}" for exchange in OWN_EXCHANGES}
        for nth, bind in enumerate(() if "queue" in unsure else options.bind):
            if bind.exchange in own_exchanges:
                text = f"{bind.exchange} is an exchange of notifier's own: its events would be read twice; remove it"
                making.wrong(f"bind[{nth}].exchange", text)
        source = making.source()
        if making.mistakes:
            mistakes += making.mistakes
        elif options.http is not None and options.http.signed:
            sources[name] = replace(source, types=MappingProxyType(types))
        else:
            sources[name] = source
    return MappingProxyType(sources), mistakes


@dataclass(slots=True)
class _Making:
    """Compiles one source. `issuers` are the configured ones, None if that section has errors.

    `plain`: the source ignores case and `_` in names.
    """

    name: str
    options: SourceSettings
    issuers: tuple[str, ...] | None
    mistakes: list[InputIssue] = field(default_factory=list)
    mentioned: set[str] = field(default_factory=set)
    plain: bool = False

    def wrong(self, member: str, text: str) -> None:
        """Record an error in one of its settings."""
        self.mistakes.append(InputIssue(f"sources.{self.name}.{member}", text))

    def source(self) -> Source:
        """Return the source; it must not be used if errors were recorded."""
        options, preset = self.options, self._preset()
        self.plain = preset.ignore_case if options.ignore_case is None else options.ignore_case
        named = preset.envelope if options.envelope is None else options.envelope
        when = preset.when if options.when is None else options.when
        members = self._members(preset)
        realm = self._realm(preset, members)
        self._check_issuers()
        proofs = () if options.http is None else (options.http.header, options.http.hmac and options.http.hmac.header)
        secret = {header.lower() for header in proofs if header}
        return Source(
            name=self.name,
            preset=options.preset,
            issuer=self._only(),
            issuers=options.issuers,
            realm=realm,
            envelopes=tuple(filter(None, map(self._envelope, range(len(named)), named))),
            lines=bool(named) and named[0] == LINES,
            as_json=options.content_type is not None,
            ignore_case=self.plain,
            when=None if when is None else self._expression("when", when),
            members=MappingProxyType(members),
            secret=frozenset(secret),
            mentioned=frozenset(self.mentioned),
        )

    def _preset(self) -> SourcePreset:
        if self.options.preset is None:
            return _OWN
        preset = SOURCE_PRESETS.get(self.options.preset)
        if preset is not None:
            return preset
        near = get_close_matches(self.options.preset.lower(), SOURCE_PRESETS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        text = f"there is no preset {excerpt(self.options.preset)}; {hint}there are {', '.join(SOURCE_PRESETS)}"
        self.wrong("preset", text)
        return _OWN

    def _members(self, preset: SourcePreset) -> dict[str, Expression]:
        of_preset, own = dict(preset.event), self.options.event or {}
        for name in own.keys() - set(_MEMBERS):
            near = get_close_matches(name.lower(), _MEMBERS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(_MEMBERS)}"
            self.wrong(f"event.{excerpt(name)}", f"there is no such member of an event; {hint}")
        texts = {name: text for name, text in {**of_preset, **own}.items() if name in _MEMBERS}
        unknown_preset = self.options.preset is not None and preset is _OWN
        if not unknown_preset:
            self._check_members(texts)
        expressions = {name: self._expression(f"event.{name}", text) for name, text in texts.items()}
        return {name: expression for name, expression in expressions.items() if expression is not None}

    def _check_members(self, texts: Mapping[str, str]) -> None:
        if not texts:
            self.wrong("event", f"is required without a preset; presets are {', '.join(SOURCE_PRESETS)}")
            return
        everybody = texts.get("clients", "").strip()
        if everybody in ("*", '"*"'):
            self.wrong("event.clients", f'{everybody} names members of the document; for all clients write "{_ALL}"')
        elif not everybody and "clients" not in texts:
            self.wrong("event.clients", f'is required; for all clients of the issuer write "{_ALL}"')
        if everybody == _ALL and not {"sub", "sid"} & texts.keys():
            self.wrong("event", "needs sub or sid, which say whose session ended")

    def _realm(self, preset: SourcePreset, members: Mapping[str, Expression]) -> Expression | None:
        """Return the expression for the document's name of its issuer, if that is not `iss`."""
        if self.options.issuers is None:
            own = "iss" in (self.options.event or {})
            return None if own or preset.realm is None else self._expression("event.iss", preset.realm)
        own = self.options.event is not None and "iss" in self.options.event
        if preset.realm is not None and not own:
            return self._expression("event.iss", preset.realm)
        if "iss" not in members and preset.event is not _OWN.event:
            self.wrong("issuers", "this preset's documents name no issuer; write `issuer`, or give event.iss")
        elif "iss" not in members:
            self.wrong("issuers", "needs event.iss, an expression for what a document calls its issuer")
        return members.get("iss")

    def _only(self) -> str | None:
        """Return the source's issuer; by default that of its Security Event Tokens, or the only one configured."""
        options, known = self.options, self.issuers or ()
        if options.issuer is not None or options.issuers is not None:
            return options.issuer
        if options.http is not None and options.http.set is not None and options.http.set.issuer in known:
            return options.http.set.issuer
        return known[0] if len(known) == 1 else None

    def _check_issuers(self) -> None:
        options = self.options
        if self.issuers and self._only() is None and options.issuers is None:
            pairs = ", ".join(f'"{iss}": "{iss}"' for iss in self.issuers)
            count = len(self.issuers)
            text = f"is required, since there are {count} issuers: the one it speaks for, or issuers: {{{pairs}}}"
            self.wrong("issuer", text)
        places = {} if options.issuer is None else {"issuer": options.issuer}
        places |= {f"issuers.{name}": iss for name, iss in (options.issuers or {}).items()}
        for place, iss in places.items():
            if self.issuers is not None and iss not in self.issuers:
                near = get_close_matches(iss, self.issuers, n=1)
                self.wrong(
                    place, f"{iss} is not configured under issuers{f'; did you mean {near[0]}?' if near else ''}"
                )

    def _envelope(self, number: int, text: str) -> Envelope | None:
        place = f"envelope[{number}]"
        if text in ENVELOPES:
            return ENVELOPES[text]
        if text == LINES and number == 0:
            return EventList(Expression("@"))
        if text == LINES:
            self.wrong(place, "lines must be the first")
            return None
        near = get_close_matches(text.lower(), (*ENVELOPES, LINES), n=1, cutoff=0.75) if _NAME.fullmatch(text) else []
        if near and len(text) > len(LINES):
            self.wrong(place, f"there is no envelope {text}; did you mean {near[0]}?")
            return None
        expression = self._expression(place, text)
        return None if expression is None else EventList(expression)

    def _expression(self, place: str, text: str) -> Expression | None:
        try:
            expression = Expression(text)
        except NoExpression as no:
            self.wrong(place, str(no))
            return None
        if self.plain and (name := unplain_name(expression.parsed)) is not None:
            self.wrong(place, f"no name is {excerpt(name)} with ignore_case; write {plain_name(excerpt(name))}")
        self.mentioned |= expression.fields
        return expression
