"""Validates groups of members in a section, of which exactly one, or at most one, may be set."""

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import model_validator

from notifier.settings.values import Section

ChoiceT = TypeVar("ChoiceT", bound=Section)


def find_choice_errors(section: Section, *groups: Sequence[str]) -> list[str]:
    """Return an error for each group of members, unless exactly one of them is set."""
    errors = []
    for group in groups:
        given = [name for name in group if getattr(section, name) is not None]
        is_pair = len(group) == 2
        if len(given) != 1:
            needed = " or ".join(group) if is_pair else f"one of {', '.join(group)}"
            excess = f"; it has {'both' if is_pair else ' and '.join(given)}" if given else ""
            errors.append(f"needs {needed}{excess}")
    return errors


def exactly_one(*group: str) -> Any:
    """Return a validator that requires exactly one of these members of a section; without names, of all members."""

    def check(section: ChoiceT) -> ChoiceT:
        errors = find_choice_errors(section, group or tuple(type(section).model_fields))
        if errors:
            raise ValueError(errors[0])
        return section

    return model_validator(mode="after")(check)


def at_most_one(member: str, alternative: str) -> Any:
    """Return a validator that refuses a section with both members."""

    def check(section: ChoiceT) -> ChoiceT:
        if getattr(section, member) is not None and getattr(section, alternative) is not None:
            raise ValueError(f"{member} and {alternative} are both given; remove one of them")
        return section

    return model_validator(mode="after")(check)
