"""Makes and changes deliveries by the names of all their members, with those of their progress."""

import dataclasses
from typing import Any, TypeVar

from notifier.model.delivery import Delivery
from notifier.model.progress import Progress
from notifier.model.record import copy_record

RecordT = TypeVar("RecordT")
_PROGRESS = {each.name for each in dataclasses.fields(Progress)}


def make_delivery(**members: Any) -> Delivery:
    """Return a delivery with these members."""
    progress = {name: members.pop(name) for name in _PROGRESS & members.keys()}
    return Delivery(**members, progress=Progress(**progress))


def replace(record: RecordT, /, **changes: Any) -> RecordT:
    """Copy a record with changes; a delivery also with changes of its progress."""
    if not isinstance(record, Delivery):
        return dataclasses.replace(record, **changes)  # type: ignore[type-var]
    progress = {name: changes.pop(name) for name in _PROGRESS & changes.keys()}
    if progress:
        changes["progress"] = copy_record(changes.get("progress", record.progress), **progress)
    return copy_record(record, **changes)
