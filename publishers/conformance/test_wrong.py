"""Each case can fail: a publisher that breaks one part of the contract is caught by the case of that part.

That the same program passes when it breaks nothing is seen by `--publisher program`.
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from publishers.conformance.broker import Broker, broker
from publishers.conformance.cases import broker_faults, confirms, http, kills, lanes, limits, secrets, tls
from publishers.conformance.subject import SignOutFailed
from publishers.conformance.world import world
from publishers.conformance.wrong.subject import subject
from tests.rabbitmq_node import RabbitmqMissing, rabbitmq_node

pytestmark = [pytest.mark.full, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

PATIENCE = 30.0
SHORT = 4.0  # seconds until a case gives up on what never comes; the right program needs less than a quarter
WRONG: list[tuple[str, Callable[..., Awaitable[None]], str, float]] = [
    ("transient", confirms.test_the_message_is_what_is_promised, "delivery_mode", PATIENCE),
    ("nameless", confirms.test_the_message_is_what_is_promised, "user_id", PATIENCE),
    ("no confirm", confirms.test_only_a_confirm_takes_the_file_away, "nobody has confirmed", SHORT),
    ("new id", confirms.test_only_a_confirm_takes_the_file_away, "several ids", PATIENCE),
    ("not mandatory", confirms.test_an_exchange_without_a_queue_takes_nothing, "nobody has confirmed", SHORT),
    ("password once", confirms.test_a_password_is_read_again_at_each_connection, "lost", SHORT),
    ("newest first", broker_faults.test_the_broker_is_away_for_many_sign_outs, "in_order", PATIENCE),
    ("waits", broker_faults.test_a_broker_that_hangs_holds_up_no_sign_out, "no answer", SHORT),
    ("greedy", broker_faults.test_memory_does_not_grow_with_what_waits, "< 32", PATIENCE),
    ("one lane", lanes.test_a_bulk_lane_that_cannot_be_published_holds_up_nobody, "users wait", SHORT),
    ("no file", kills.test_killed_with_a_full_outbox, "lost", SHORT),
    ("file after", kills.test_killed_at_any_moment_of_a_sign_out, "lost", SHORT),
    ("tells living", kills.test_killed_at_any_moment_of_a_sign_out, "told that lives", PATIENCE),
    ("stumbles", kills.test_a_damaged_file_is_set_aside, "not set aside", SHORT),
    ("steals", kills.test_two_processes_share_an_outbox, "500", PATIENCE),
    ("fails on a full disk", limits.test_the_disk_is_full, "500", PATIENCE),
    ("no limit", limits.test_the_outbox_is_full, "does not say so", SHORT),
    ("never too old", limits.test_an_event_that_is_too_old_is_set_aside, "set aside", SHORT),
    ("any name", tls.test_no_certificate_but_the_right_one_is_taken, "wrong name|nobody has confirmed", PATIENCE),
    ("200 will do", http.test_only_202_confirms, "taken for 202", SHORT),
    ("follows", http.test_only_202_confirms, "redirect", PATIENCE),
    ("hasty", http.test_only_202_confirms, "Retry-After", PATIENCE),
    ("drops", http.test_what_the_api_refuses_is_set_aside, "not set aside", SHORT),
    ("talks", secrets.test_the_log_holds_no_secrets, "one more item", PATIENCE),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rabbit(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Broker]:
    """One broker for all of them."""
    try:
        with rabbitmq_node() as node:
            async with broker(node, tmp_path_factory.mktemp("broker")) as made:
                yield made
    except RabbitmqMissing as missing:
        pytest.exit(str(missing), returncode=4)


@pytest.mark.parametrize(
    ("wrong", "case", "said", "patience"), WRONG, ids=[f"{row[0]}-{row[1].__name__[5:]}" for row in WRONG]
)
async def test_it_is_caught(
    rabbit: Broker, tmp_path: Path, wrong: str, case: Callable[..., Awaitable[None]], said: str, patience: float
) -> None:
    """And for the right reason."""
    (tmp_path / "subject").mkdir()
    program = subject(tmp_path / "subject", wrong)
    arguments = {"tmp_path": tmp_path, "status": 400}
    wanted = {name: value for name, value in arguments.items() if name in inspect.signature(case).parameters}
    try:
        async with world(program, rabbit, tmp_path, patience=patience) as made:
            if case is secrets.test_the_log_holds_no_secrets:
                await confirms.test_the_message_is_what_is_promised(made)
            with pytest.raises((AssertionError, SignOutFailed), match=said):
                await case(made, **wanted)
    finally:
        await rabbit.come_back()
