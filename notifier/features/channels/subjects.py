"""Builds subject identifiers (RFC 9493), by which receivers know the user, from the values of a delivery.

Receivers differ in more than the format: one has other names for the members, another has the name of an attribute as
the format. So a rule is the identifier itself, with names in braces. The formats of the RFC are rules that have a name.
"""

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TypeAlias

from notifier.delivery.verdict import Dead
from notifier.model.client import Client
from notifier.model.delivery import Delivery
from notifier.model.outcome import DeadReason

SubjectRule: TypeAlias = Mapping[str, str]
FORMATS: Mapping[str, SubjectRule] = {
    "iss_sub": {"format": "iss_sub", "iss": "{iss}", "sub": "{sub}"},
    "email": {"format": "email", "email": "{email}"},
    "opaque": {"format": "opaque", "id": "{sub}"},
}
_NAMES = ("iss", "sub", "email")
_BRACES = re.compile(r"\{([^{}]*)\}")
_ADDRESS = re.compile(r"[^@\s]+@[^@\s]+")
_EXAMPLE = 'an identifier such as {format: iss_sub, iss: "{iss}", sub: "{sub}"}'
_NO_SUB = Dead(reason=DeadReason.NO_SUB, text="the client knows users by `sub`, and the event has none for it")
_BY_EMAIL = "the client knows users by e-mail address, and"


def parse_rule(value: object) -> SubjectRule:
    """Return the rule of a format's name, or the identifier itself. Raises ValueError with the remedy."""
    if isinstance(value, str) and value in FORMATS:
        return FORMATS[value]
    members = dict(value) if isinstance(value, Mapping) else {}
    if not members or not all(isinstance(text, str) for pair in members.items() for text in pair):
        raise ValueError(f"must be {', '.join(FORMATS)}, or {_EXAMPLE}")
    if not members.get("format") or "{" in members["format"]:
        raise ValueError(f"needs a format without braces, as {_EXAMPLE}")
    names = set(names_in(members))
    if not names <= {*_NAMES} or any({*"{}"} & {*_BRACES.sub("", text)} for text in members.values()):
        raise ValueError(f"may have {', '.join(f'{{{name}}}' for name in _NAMES)} in its texts, and no other braces")
    if not names & {"sub", "email"}:
        raise ValueError("must name the user by {sub} or {email}")
    return MappingProxyType(members)


def names_in(rule: SubjectRule) -> Iterator[str]:
    """Yield the names in braces."""
    for text in rule.values():
        yield from _BRACES.findall(text)


def build_subject(rule: SubjectRule, delivery: Delivery, client: Client) -> dict[str, object] | Dead:
    """Return the identifier of the user, or Dead if the event lacks a value of the rule.

    A pairwise client receives only the `sub` of its own entry, as in a logout token (B7).
    """
    sub = delivery.sub if delivery.entry_sub or not client.pairwise else None
    values = {"iss": delivery.iss, "sub": sub, "email": delivery.email}
    for name in names_in(rule):
        value = values[name]
        if not value or (name == "email" and _ADDRESS.fullmatch(value) is None):
            return _NO_SUB if name == "sub" else _describe_email(delivery)
    return {member: _BRACES.sub(lambda name: values[name[1]] or "", text) for member, text in rule.items()}


def _describe_email(delivery: Delivery) -> Dead:
    """Return why there is no usable `email`. Whether the event had one that does not count is in the log only."""
    if delivery.email:
        text = f"{_BY_EMAIL} the event's `email` is not valid: an address has one `@` and no spaces"
    else:
        publisher = "an unnamed publisher" if delivery.publisher is None else f"publisher {delivery.publisher!a}"
        text = f"{_BY_EMAIL} the event has none that counts: it is missing, or {publisher} is not one whose `email`"
        text += " counts (issuers.<iss>.publishers, registry.inline; log members_ignored)"
    return Dead(reason=DeadReason.NO_EMAIL, text=text)
