"""The soak in a short form: it holds for the worker as it is, and tells a worker that loses and grows."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.conftest import Form, Tell
from tests.faults.soak import Plan, Soak
from tests.faults.soak_figures import BEGIN, END, Figures, Sample, courses, write_section
from tests.rabbitmq_node import RabbitmqNode
from tests.system.ledger import Account
from tests.system.worker_process import ROOT

BROKEN = [sys.executable, str(ROOT / "tests" / "faults" / "acks_first_and_leaks.py")]
SHORT = Plan(  # by this seed workers are killed first, and the broker last: it is away for longer than the others
    seconds=8,
    seed=38,
    pace=0.1,
    sample_every=0.4,
    tell_every=2.0,
    quiet=6.0,
    circuit={"failures": 1_000_000, "failure_rate": 1},
)


async def soak(plan: Plan, node: RabbitmqNode, folder: Path) -> tuple[Figures, list[str]]:
    """What it found, and what it told while it ran."""
    told: list[str] = []
    figures = await Soak(plan, node, folder, told.append).run()
    print(*told, figures, sep="\n")  # noqa: T201  what `pytest -s` and a failed run show
    return figures, told


@pytest.mark.fault("soak", "faults of every kind at random moments, of workers, broker, a client and the registry")
@pytest.mark.timeout(300)
async def test_nothing_is_lost_or_wrong(
    tmp_path: Path, module_node: RabbitmqNode, form: Form[float], tell: Tell
) -> None:
    """Faults of every script in a few seconds. Whether it is flat is for a longer run to say."""
    figures, told = await soak(replace(SHORT, seconds=form(8, 60), pace=form(0.1, 0.3)), module_node, tmp_path)
    assert figures.complaints == []
    assert any("a worker" in made["what"] for made in figures.made)
    assert any("broker" in made["what"] for made in figures.made)
    assert any(" told, " in line for line in told)
    assert Figures.from_json(figures.to_json()).to_json() == figures.to_json()
    tell(figures.account, times=len(figures.made), broker=figures.broker)


@pytest.mark.timeout(300)
async def test_a_worker_that_loses_and_grows_is_told(tmp_path: Path, module_node: RabbitmqNode) -> None:
    """The same worker but for two things: it acks as it takes, and leaves a file open for each message.

    Its clients are in no hurry, so that whenever it is killed it holds some.
    """
    figures, _ = await soak(replace(SHORT, rate=100, answer=0.4, command=BROKEN), module_node, tmp_path)
    assert figures.account.missing
    assert [course.what for course in figures.courses if not course.flat] == ["descriptors"]
    assert not figures.holds
    assert "descriptors" in str(figures)
    assert "GREW" in str(figures)
    assert str(figures).endswith("FAILED")


def samples(growth: float) -> list[Sample]:
    """Half an hour, of which the first minutes are warming up; then so many MiB more a minute."""
    minutes = [number / 6 for number in range(180)]
    return [
        Sample(
            at=at * 60, memory=80 - 20 * max(0.0, 1 - at / 5) + growth * at, descriptors=20, connections=40, threads=5
        )
        for at in minutes
    ]


@pytest.mark.parametrize(("growth", "flat"), [(0.0, True), (0.3, True), (1.5, False)])
def test_warming_up_is_no_growth(growth: float, flat: bool) -> None:
    """What is given back a MiB a minute too little is 18 MiB from the second fifth to the last."""
    assert [course.flat for course in courses(samples(growth))] == [flat, True, True, True]


def test_few_samples_tell_nothing() -> None:
    """No median of two looks is called flat."""
    assert courses(samples(0)[:9]) == []


def figures(*complaints: str) -> Figures:
    """Those of a run in which nothing was lost."""
    account = Account(
        events=1200, deliveries=3600, delivered=3400, waiting={}, dead={"refused": 200}, duplicates={"killed": 3},
        missing=(), wrong=(),
    )  # fmt: skip
    return Figures(
        began="2026-01-01 00:00 UTC", broker="4.0.5", minutes=30, seed=1, rate=40, account=account,
        faults={"the broker frozen": 7}, made=[], samples=samples(0), courses=courses(samples(0)), said={},
        complaints=complaints, cpu={},
    )  # fmt: skip


def test_a_complaint_fails_it() -> None:
    """However well the ledger is settled."""
    assert figures().holds
    assert not figures("a worker ended by itself, with 1").holds


def test_the_document_gets_the_figures_between_its_markers(tmp_path: Path) -> None:
    """Again and again, and nothing around them is touched."""
    document = tmp_path / "reliability.md"
    document.write_text(f"before\n{BEGIN}\n{END}\nafter\n")
    for _ in range(2):
        write_section(figures(), document)
    before, _, rest = document.read_text().partition(BEGIN)
    made, _, after = rest.partition(END)
    assert (before, after) == ("before\n", "\nafter\n")
    assert "30 minutes, begun 2026-01-01 00:00 UTC, seed 1, RabbitMQ 4.0.5: 1,200 events of 3,600 deliveries" in made
    assert "| the broker frozen | 7 |" in made
    assert "| memory | 80.0 MiB | 80.0 MiB | 80.0 MiB | 96.0 MiB |" in made


def test_a_document_without_a_place_is_left_alone(tmp_path: Path) -> None:
    """It says what is missing."""
    document = tmp_path / "reliability.md"
    document.write_text("text\n")
    with pytest.raises(SystemExit, match="no place"):
        write_section(figures(), document)
    assert document.read_text() == "text\n"
