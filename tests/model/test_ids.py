"""The ids made here are what they say they are."""

from uuid import RFC_4122, UUID

from notifier.model.ids import new_id


def test_an_id_is_a_random_uuid_and_never_the_same() -> None:
    """R2: a `jti` never comes twice; and who parses it as a UUID can."""
    made = [new_id() for _ in range(10_000)]
    assert len(set(made)) == len(made)
    for each in made:
        assert str(UUID(each)) == each
        assert UUID(each).version == 4
        assert UUID(each).variant == RFC_4122
