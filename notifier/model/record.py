"""Records that the type checker protects from changes, at no cost at run time.

A dataclass that is frozen at run time sets each field through `object.__setattr__`. The records of one delivery have
some sixty fields, so that would cost 8 µs of its 170, for a mistake that mypy finds anyway.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")
RecordT = TypeVar("RecordT")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """Make a slotted, keyword-only dataclass, compared and hashed by its fields, and frozen for the type checker."""
    return dataclass(slots=True, kw_only=True, unsafe_hash=True)(cls)


def copy_record(original: RecordT, /, **changes: Any) -> RecordT:
    """Copy a record with changes: a faster `dataclasses.replace` for types made by `record` without `__post_init__`.

    Raises AttributeError for a name that is not a field.
    """
    kind: Any = type(original)
    instance: RecordT = object.__new__(kind)
    _copier_of(kind)(instance, original)
    for name, value in changes.items():
        setattr(instance, name, value)
    return instance


@cache
def _copier_of(kind: Any) -> Callable[[object, object], None]:
    """Return a function that copies each field of a record of this type. A loop would take 2.4 µs instead of 0.7."""
    assignments = "".join(f"\n    new.{each.name} = old.{each.name}" for each in fields(kind))
    namespace: dict[str, Callable[[object, object], None]] = {}
    exec(f"def copy_fields(new, old):{assignments}", namespace)  # noqa: S102  field names only, as in `dataclasses`
    return namespace["copy_fields"]
