"""What the process wrote in all the cases before holds no secret. Run last."""

from publishers.conformance.harness import Harness


async def test_the_log_holds_no_secrets(harness: Harness) -> None:
    """Neither a password nor a user, a session or a cookie. API tokens are looked for where they are used."""
    log = harness.log()
    assert log, "there is no log"
    secret = [*harness.broker.passwords, *(word for session in harness.all_sessions for word in session.secret)]
    assert [word for word in secret if word in log] == []
