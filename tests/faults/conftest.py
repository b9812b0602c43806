"""How long each fault is made, and where its account is told.

`NOTIFIER_FAULTS=long` takes the long form of each (`make faults`), `NOTIFIER_FAULTS_SEED` another chance, and
`NOTIFIER_FAULTS_REPORT` names a file that gets the account of each as a line of JSON, of which docs/reliability.md is
made.
"""

import json
import os
import random
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import pytest

from tests.system.ledger import Account

T = TypeVar("T")
Form = Callable[[T, T], T]
Tell = Callable[..., None]


@pytest.fixture
def form() -> Form[int]:
    """`form(short, long)`: the first as part of every test run, the second in the long form."""
    long = os.environ.get("NOTIFIER_FAULTS") == "long"
    return lambda short, longer: longer if long else short


@pytest.fixture
def chance() -> random.Random:
    """The same in every run, unless another seed is asked for."""
    return random.Random(int(os.environ.get("NOTIFIER_FAULTS_SEED", "1")))


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Tell:
    """`tell(account, times=20)`: the account must hold; it is told for the table. `broker` is the version it ran on."""
    marker = request.node.get_closest_marker("fault")

    def tell(account: Account, *, times: int = 1, broker: str = "") -> None:
        print(account)  # noqa: T201  what `pytest -s` and a failed run show
        path = os.environ.get("NOTIFIER_FAULTS_REPORT")
        if path and marker is not None:
            group, what = marker.args
            line = {"group": group, "what": what, "times": times, "broker": broker, **asdict(account)}
            with Path(path).open("a") as file:
                file.write(json.dumps(line) + "\n")
        assert account.holds, str(account)

    return tell
