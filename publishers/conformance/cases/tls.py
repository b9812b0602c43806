"""TLS verifies the broker's chain and name."""

import pytest

from publishers.conformance.broker import TlsDoor
from publishers.conformance.world import World


@pytest.mark.starts
async def test_no_certificate_but_the_right_one_is_taken(world: World) -> None:
    """Of another name, or of another authority: nothing is published, nothing is lost."""
    door = TlsDoor(world.broker)
    async with door.open():
        await world.run(url=door.url, ca_file=door.ca_file)
        before, first, second = await world.sign_in(3)
        await world.sign_out([before])
        await world.until_told([before])
        for session, wrong in ((first, "wrong name"), (second, "wrong authority")):
            await door.show(wrong)
            made = door.attempts
            await world.sign_out([session])
            await world.until(lambda: door.attempts > made + 1 or world.of(session), "nothing was tried")  # noqa: B023
            assert not world.of(session), f"a certificate of the {wrong} was taken"
            await world.stays_waiting()
        await door.show("right")
        await world.until_told([first, second])
