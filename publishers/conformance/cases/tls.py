"""TLS verifies the broker's chain and name."""

import pytest

from publishers.conformance.broker import TlsDoor
from publishers.conformance.harness import Harness


@pytest.mark.starts
async def test_only_the_right_certificate_is_accepted(harness: Harness) -> None:
    """Of another name, or of another authority: nothing is published, nothing is lost."""
    door = TlsDoor(harness.broker)
    async with door.open():
        await harness.run(url=door.url, ca_file=door.ca_file)
        before, first, second = await harness.sign_in(3)
        await harness.sign_out([before])
        await harness.until_published([before])
        for session, wrong in ((first, "wrong name"), (second, "wrong authority")):
            await door.show(wrong)
            made = door.attempts
            await harness.sign_out([session])
            await harness.until(lambda: door.attempts > made + 1 or harness.of(session), "nothing was tried")  # noqa: B023
            assert not harness.of(session), f"a certificate of the {wrong} was taken"
            await harness.stays_waiting()
        await door.show("right")
        await harness.until_published([first, second])
