"""What the process wrote in all the cases before holds no secret. Run last."""

from publishers.conformance.world import World


async def test_the_log_holds_no_secrets(world: World) -> None:
    """Neither a password nor a user, a session or a cookie. API tokens are looked for where they are used."""
    log = world.log()
    assert log, "there is no log"
    secret = [*world.broker.passwords, *(word for session in world.all_sessions for word in session.secret)]
    assert [word for word in secret if word in log] == []
