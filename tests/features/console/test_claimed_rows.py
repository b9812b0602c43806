"""Each action of a command is one row of the audit log, though all workers log it."""

import pytest

from notifier.features.console.all_workers import collect_acts
from notifier.operators.status.worker_requests import WorkerAnswer


def test_action_of_a_command_is_one_row() -> None:
    """All workers log it, and all have it in memory."""
    own = {"at": "2030-01-01T00:00:02Z", "who": "sre", "action": "reload_asked"}
    claimed = {"at": "2030-01-01T00:00:01Z", "who": "bob@h (claimed)", "action": "retried_now", "action_id": "a1"}
    answers = [WorkerAnswer(worker=name, version="1", result={"acts": [claimed, own]}) for name in ("a:1", "b:2")]
    assert [row["who"] for row in collect_acts(answers)] == ["sre", "sre", "bob@h (claimed)"]


@pytest.mark.parametrize("action_id", [0, 1, True, ["a"], None])
def test_claimed_line_hides_no_other(action_id: object) -> None:
    """Whatever a worker of another release took from whoever may use the queue."""
    own = [{"at": f"2030-01-01T00:00:0{second}Z", "who": "sre", "action": "reload_asked"} for second in (2, 3)]
    claimed = {"at": "2030-01-01T00:00:01Z", "who": "eve (claimed)", "action": "retried_now", "action_id": action_id}
    answers = [WorkerAnswer(worker="a:1", version="1", result={"acts": [claimed, *own]})]
    assert [row["who"] for row in collect_acts(answers)] == ["sre", "sre", "eve (claimed)"]
