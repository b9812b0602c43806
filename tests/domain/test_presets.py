"""Presets name the receivers of the table, and are partial: what is None is left to the defaults."""

import pytest

from notifier.domain.client import SubjectMode
from notifier.domain.presets import PRESETS


def test_every_receiver_has_one() -> None:
    """Each receiver of the table can be named, and says why it needs what it gets."""
    assert set(PRESETS) == {
        "mod_auth_openidc",
        "express_openid_connect",
        "spring",
        "duende_bff",
        "keycloak",
        "nextcloud",
        "pac4j",
        "rauthy",
        "auth0_sample",
    }
    assert all(preset.why for preset in PRESETS.values())


@pytest.mark.parametrize("name", sorted(set(PRESETS) - {"express_openid_connect", "pac4j", "auth0_sample"}))
def test_most_need_nothing(name: str) -> None:
    """The defaults were chosen so that most receivers take the token as it is."""
    assert (PRESETS[name].typ, PRESETS[name].subject) == (None, None)


def test_those_that_need_something() -> None:
    """express would end all sessions by a token with both; pac4j must have sid; Auth0's sample takes JWT only."""
    assert PRESETS["express_openid_connect"].subject is SubjectMode.SID_FIRST
    assert PRESETS["pac4j"].subject is SubjectMode.SID
    assert PRESETS["auth0_sample"].typ == "JWT"


def test_cannot_be_changed() -> None:
    """The table is the same for everyone."""
    with pytest.raises(TypeError):
        PRESETS["mine"] = PRESETS["spring"]  # type: ignore[index]
