"""A rotation of the signing key under load, with a client that keeps the issuer's keys and asks for none that it lacks.

Microsoft's library keeps them for 12 h; here it is seconds. The client's preset says that it does so.
"""

import asyncio
import os
import time
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from tests.faults.conftest import Form, Tell
from tests.faults.rig import CLIENTS, Rig, answers, load
from tests.system.clients import Hit
from tests.system.site import ISSUER, client
from tests.system.worker_process import worker

KEEPS = 3.0  # seconds from one reading of the issuer's keys to the next
KEEPER = "healthy"


class KeptKeys:
    """The keys as that client has them: read when it is asked something after they have become too old.

    `caught`: a key that signs at once finds it with the old ones. So it reads again only once it has refused one.
    """

    def __init__(self, made: Rig, *, caught: bool) -> None:
        self._made = made
        self._caught = caught
        self._refused_before = 0
        self._known: set[str] = set()
        self._read_at = float("-inf")
        self.refused = 0
        self._others = answers(0)

    async def judge(self, hit: Hit) -> int:
        """400 for a key that it does not have."""
        if hit.path != f"/{KEEPER}":
            return await self._others(hit)
        waits = self._caught and self._known and self.refused == self._refused_before
        if time.monotonic() - self._read_at > KEEPS and not waits:
            self._read_at, self._refused_before = time.monotonic(), self.refused
            self._known = {str(key["kid"]) for key in self._made.site.jwks(ISSUER)["keys"]}
        if hit.header["kid"] in self._known:
            return 200
        self.refused += 1
        return 400


def _signed(made: Rig, kid: str) -> bool:
    return any(hit.header["kid"] == kid for hit in made.clients.hits)


@pytest.mark.parametrize(
    "a_day",
    [
        pytest.param(
            True,
            marks=pytest.mark.fault(
                "signing key",
                "rotated under load, with a client that keeps the issuer's keys: signs once it is known",
            ),
        ),
        pytest.param(
            False,
            marks=pytest.mark.fault(
                "signing key",
                "rotated under load, with a client that keeps the issuer's keys: signs at once, and is refused",
            ),
        ),
    ],
)
@pytest.mark.timeout(600)
async def test_no_logout_is_lost(made: Rig, form: Form[int], tell: Tell, a_day: bool) -> None:
    """With a `not_before` by which the client knows the key it refuses nothing. Otherwise its 400s are held back."""
    times = form(1, 5)
    kept = KeptKeys(made, caught=not a_day)
    made.clients.judge = kept.judge
    made.site.write_clients(
        [
            client(name, made.clients.url(name), **({"preset": "duende_bff"} if name == KEEPER else {}))
            for name in CLIENTS
        ]
    )
    days_ago = time.time() - 2 * 86_400
    os.utime(made.site.folder / "first.pem", (days_ago, days_ago))
    async with worker(made.site) as running, load(made.publisher, 60) as end:
        await made.more(60)
        for turn in range(times):
            begins = datetime.now(UTC) + timedelta(seconds=KEEPS + 2 if a_day else 0)
            kid = made.site.add_key(ISSUER, f"turn-{turn}.pem", not_before=begins.isoformat())
            made.site.write()
            await made.clients.until(partial(_signed, made, kid), 60)
            await asyncio.sleep(KEEPS)
        await end()
        await made.until_settled()
        held = await running.metric("deferrals_total", client_id=KEEPER, cause="signing")
        assert await running.metric("dead_letters_total", reason="rejected_token") == 0
        assert await running.stop() == 0
    assert (kept.refused > 0) != a_day
    assert (held > 0) != a_day
    tell(await made.account(cause="refused by the client"), times=times)
