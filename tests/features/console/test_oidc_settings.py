"""The section `api.console.oidc`: what is refused, and that it closes the API."""

from pathlib import Path
from typing import Any

import pytest

from notifier.configuration.loading import load
from notifier.features import FEATURES
from notifier.model.errors import ConfigurationError
from tests.features.console.console_provider import CLIENT, live, oidc, written

ISSUER = "https://login.example.com/realms/staff"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"issuer": "http://login.example.com"}, "https://"),
        ({"issuer": "https://*.example.com"}, "one host"),
        ({"client_id": None}, "client_id"),
        ({"audience": ""}, "audience"),
        ({"audience": CLIENT, "accept_typ_jwt": True}, "audience must not be client_id"),
        ({"scopes_claim": []}, "scopes_claim"),
        ({"map": {}}, "map"),
        ({"map": {"sre": ["write"]}}, "map.sre"),
        ({"map": {"idp": ["publish"]}}, "map.idp"),
        ({"scope": "profile"}, "scope: must begin with openid"),
        ({"accept_typ_jwt": "maybe"}, "accept_typ_jwt: must be true or false"),
        ({"discovery": "login.example.com"}, "discovery"),
    ],
)
def test_a_mistake_names_the_setting(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    """Before anybody signs in."""
    with pytest.raises(ConfigurationError) as refused:
        load(written(tmp_path, oidc(ISSUER, **changes)), {}, FEATURES)
    [mistake] = refused.value.mistakes
    assert str(mistake).startswith("api.console.oidc")
    assert said in str(mistake)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    """Of the section, as of all others."""
    wrong = oidc("http://login.example.com", audience="", map={"sre": ["write"]}, scopes=1)
    with pytest.raises(ConfigurationError) as refused:
        load(written(tmp_path, wrong), {}, FEATURES)
    assert len(refused.value.mistakes) == 4


def test_it_is_for_a_console_that_is_served(tmp_path: Path) -> None:
    """Else the API would take tokens that nobody can get."""
    path = written(tmp_path, None, console={"enabled": False, "oidc": oidc(ISSUER)})
    with pytest.raises(ConfigurationError, match="enabled"):
        load(path, {}, FEATURES)


def test_with_it_nobody_is_let_in_without_a_token(tmp_path: Path) -> None:
    """The freedom of loopback ends, and other machines may reach the listener without a file of tokens."""
    assert live(written(tmp_path, oidc(ISSUER))).tokens() == ()
    assert live(written(tmp_path, oidc(ISSUER), listen="0.0.0.0:8080")).tokens() == ()
    assert live(written(tmp_path, None)).tokens() is None
    was = live(path := written(tmp_path, oidc(ISSUER)))
    written(tmp_path, None)
    assert was.reload(asked=True)
    assert was.tokens() == (), f"{path} without it opens nothing before a restart"
    with pytest.raises(ConfigurationError, match="tokens_file is required"):
        load(written(tmp_path, None, listen="0.0.0.0:8080"), {}, FEATURES)
