"""Each action is one row of the audit log, though all workers log it, and a repair logs a line for each message."""

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


def test_pause_is_one_row_with_the_proven_name() -> None:
    """Each worker logs it with the name that the queue claims, and the API's worker with that of the token."""
    members = {"action": "client_paused", "action_id": "p1"}
    proven = {"at": "2030-01-01T00:00:01Z", "who": "sre", **members}
    claimed = {"at": "2030-01-01T00:00:02Z", "who": "sre (claimed)", **members}
    ended = {"at": "2030-01-01T00:00:09Z", "who": "bob (claimed)", "action": "client_resumed", "action_id": "p1"}
    for of_a, of_b in ([proven, claimed, ended], [claimed, ended]), ([claimed, ended], [claimed, proven, ended]):
        answers = [
            WorkerAnswer(worker=name, version="1", result={"acts": acts})
            for name, acts in (("a:1", of_a), ("b:2", of_b))
        ]
        assert [(row["action"], row["who"]) for row in collect_acts(answers)] == [
            ("client_resumed", "bob (claimed)"), ("client_paused", "sre")
        ]  # fmt: skip


def _line(second: int, action: str, who: str = "sre", **members: object) -> dict[str, object]:
    return {"at": f"2030-01-01T00:00:0{second}Z", "who": who, "action": action, **members}


def test_repair_is_one_row_with_its_messages() -> None:
    """Its result is logged last. While it runs, and if a command claims its number, the row is still one."""
    removed = [_line(second, "dead_letter_discarded", id=f"d{second}", repair_id="r1") for second in (1, 2, 3)]
    result = _line(4, "dead_letters_discarded", done=3, repair_id="r1")
    claimed = [_line(1, "retried_now", "eve (claimed)", repair_id="r1"), _line(5, "a", "eve (claimed)", repair_id=[])]

    def rows_of(*acts: dict[str, object]) -> list[tuple[object, ...]]:
        found = collect_acts([WorkerAnswer(worker="a:1", version="1", result={"acts": list(acts)})])
        return [(row["who"], row["action"], [part["id"] for part in row.get("parts", ())]) for row in found]

    own, eve = ("sre", "dead_letters_discarded", ["d3", "d2", "d1"]), "eve (claimed)"
    assert rows_of(*removed, result) == [own]
    assert rows_of(*removed) == [("sre", "dead_letter_discarded", ["d3", "d2", "d1"])]
    assert rows_of(*removed, result, *claimed) == [(eve, "a", []), own, (eve, "retried_now", [])]
