"""A start with work waiting for many clients over TLS, as `tests.benchmarks.warm_start` measures it, but smaller."""

from pathlib import Path

import pytest

from tests.benchmarks.warm_start import start

pytestmark = pytest.mark.full


@pytest.mark.parametrize("own_files", [False, True], ids=["one authority", "files of their own"])
async def test_the_first_deliveries_meet_no_storm_of_handshakes(tmp_path: Path, own_files: bool) -> None:
    """Every attempt is delivered, within half of its deadline, and connections are used again."""
    figures = await start(tmp_path, count=40, deliveries=400, own_files=own_files)
    assert figures.attempts == {"delivered": 400}
    assert "tls_files" not in figures.deferrals
    assert max(figures.seconds) < 2.5
    assert 40 <= figures.seen.handshakes < 400
