"""Stores a delivery and its progress as the members of one JSON object, the form that every version reads and writes.

Members with their default are left out, and unknown members are ignored.
"""

from typing import Annotated, Any

from pydantic import BeforeValidator, SerializerFunctionWrapHandler, TypeAdapter, WrapSerializer

from notifier.model.delivery import Delivery
from notifier.model.progress import Progress

STORED_PATH, NESTED_PATH = "delivery.", "delivery.progress."  # of a member of the progress, in JSON and for pydantic
_SERIALIZER = TypeAdapter(Progress).serializer


def _nest_progress(members: object) -> object:
    """Return the members in the form of the classes. Each class ignores members that it lacks, so both get all."""
    return {**members, "progress": members} if isinstance(members, dict) else members


def _flatten_progress(delivery: Delivery, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
    """Return the members of the delivery and then those of its progress."""
    progress: dict[str, Any] = _SERIALIZER.to_python(delivery.progress, mode="json", exclude_defaults=True)
    return {**dump(delivery), **progress}


StoredDelivery = Annotated[Delivery, BeforeValidator(_nest_progress), WrapSerializer(_flatten_progress)]
