"""The number of cases: a few thousand by default, always the same; very many with `NOTIFIER_TEST_FAULTS=long`."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings

Property = TypeVar("Property", bound=Callable[..., Any])

LONG = os.environ.get("NOTIFIER_TEST_FAULTS") == "long"


def many(short: int, long: int) -> Callable[[Property], Property]:
    """Return the settings of a property. Seeded, so that a failure is reproducible; slow cases are permitted."""
    return settings(
        max_examples=long if LONG else short,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
