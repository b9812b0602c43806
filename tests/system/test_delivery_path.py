"""A delivery passes through few files of the core, so that a reader can follow it."""

import asyncio
from pathlib import Path

import pytest

from tools.delivery_path import by_module, by_room, trace_delivery

MAX_CORE_FILES = 15


@pytest.mark.full
def test_a_delivery_that_fails_passes_through_few_files_of_the_core(
    tmp_path: Path, amqp_url: str, bare_prefix: str
) -> None:
    """From its message to its confirmed dead letter. `python -m tools.delivery_path --functions` lists them."""
    rooms = by_room(by_module(asyncio.run(trace_delivery(amqp_url, tmp_path, bare_prefix))))
    assert {"messages", "delivery", "model", "queues", "network", "tokens"} <= set(rooms)
    assert rooms["messages"][0] + rooms["delivery"][0] <= MAX_CORE_FILES
