"""Which of a client's redirect URIs name an origin."""

import pytest

from notifier.configuration.clients.redirects import redirect_uris

CALLBACK = "https://a.example.com/cb"
FRONT = "https://b.example.com/fcl?x=1"


@pytest.mark.parametrize(
    ("given", "front_channel", "found"),
    [
        ([CALLBACK], FRONT, [CALLBACK]),
        ([CALLBACK, "com.example.app:/cb", "/cb", 5, None], FRONT, [CALLBACK]),
        ([CALLBACK, "*"], FRONT, [CALLBACK, "https://b.example.com"]),
        ([CALLBACK, "https://*.example.com/cb"], FRONT, [CALLBACK, "https://b.example.com"]),
        (["regexp=(https://a.example.com/cb|https://b.example.com/cb)"], FRONT, ["https://b.example.com"]),
        (["https://a.example.com/*"], FRONT, ["https://a.example.com/*"]),
        (["*"], None, None),
        ([], FRONT, None),
        (None, FRONT, None),
        ("https://a.example.com/cb", None, None),
        (5, None, None),
    ],
)
def test_only_exact_origins_count_but_beside_a_pattern_the_client_s_own_uri_does(
    given: object, front_channel: str | None, found: list[str] | None
) -> None:
    """Behind `*` may be any origin, and only the server can judge F1 then."""
    assert redirect_uris(given, front_channel) == found
