"""Which check-session pages a configuration has."""

import pytest
from pydantic import ValidationError

from notifier.features.browsers.web_settings import CheckSessionSettings

ISS = "https://id.example.com"


@pytest.mark.parametrize(
    ("formula", "cookie"), [("duende", "idsrv.session"), ("wso2", "opbs"), ("keycloak", "KEYCLOAK_SESSION")]
)
def test_a_product_s_cookie_need_not_be_named(formula: str, cookie: str) -> None:
    """And may be, where somebody has renamed it."""
    assert CheckSessionSettings.model_validate({"issuer": ISS, "formula": formula}).page().cookie == cookie
    renamed = {"issuer": ISS, "formula": formula, "cookie": "__Host-x"}
    assert CheckSessionSettings.model_validate(renamed).page().cookie == "__Host-x"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"formula": "specification"}, "cookie is required with formula specification"),
        ({"formula": "specification", "cookie": "a b"}, "pattern"),
        ({"formula": "specification", "cookie": "a;b"}, "pattern"),
        ({"formula": "okta"}, "keycloak"),
    ],
)
def test_a_page_that_could_not_work_is_refused(given: dict[str, str], words: str) -> None:
    """At the start, and not in a browser."""
    with pytest.raises(ValidationError, match=words):
        CheckSessionSettings.model_validate({"issuer": ISS, **given}).page()
