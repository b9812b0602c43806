"""The soak in a short form: a good worker passes, and one that loses and grows is found."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.conftest import Form, Tell
from tests.faults.soak import Plan, Soak
from tests.faults.soak_figures import Figures
from tests.rabbitmq_node import RabbitmqNode
from tests.system.worker_process import ROOT

BROKEN = [sys.executable, str(ROOT / "tests" / "faults" / "acks_first_and_leaks.py")]
SHORT = Plan(  # by this seed workers are killed first, and the broker last: it is away for longer than the others
    seconds=8,
    seed=38,
    pace=0.1,
    sample_every=0.4,
    tell_every=2.0,
    quiet=6.0,
)


async def soak(plan: Plan, node: RabbitmqNode, folder: Path) -> tuple[Figures, list[str]]:
    """What it found, and what it told while it ran."""
    told: list[str] = []
    figures = await Soak(plan, node, folder, told.append).run()
    print(*told, figures, sep="\n")  # noqa: T201  what `pytest -s` and a failed run show
    return figures, told


@pytest.mark.fault("soak", "faults of every kind at random moments, of workers, broker, a client and the registry")
@pytest.mark.timeout(600)
async def test_nothing_is_lost_or_wrong(tmp_path: Path, own_node: RabbitmqNode, form: Form[float], tell: Tell) -> None:
    """Every script makes faults for a few seconds. Only a longer run can say whether memory is flat."""
    figures, told = await soak(replace(SHORT, seconds=form(8, 60), pace=form(0.1, 0.3)), own_node, tmp_path)
    assert figures.complaints == []
    assert any("a worker" in made["what"] for made in figures.made)
    assert any("broker" in made["what"] for made in figures.made)
    assert any(" told, " in line for line in told)
    tell(figures.account, times=len(figures.made), broker=figures.broker)


@pytest.mark.timeout(600)
async def test_a_worker_that_loses_and_grows_is_told(tmp_path: Path, own_node: RabbitmqNode) -> None:
    """The same worker but for two things: it acks as it takes and forgets some, and leaves a file open for each."""
    figures, _ = await soak(replace(SHORT, rate=100, answer=0.4, command=BROKEN), own_node, tmp_path)
    assert figures.account.missing
    assert [course.what for course in figures.courses if not course.flat] == ["descriptors"]
    assert not figures.holds
    assert "descriptors" in str(figures)
    assert "GREW" in str(figures)
    assert str(figures).endswith("FAILED")
