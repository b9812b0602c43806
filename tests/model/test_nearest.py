"""The name that somebody most likely meant, found at a bounded cost."""

import pytest

from notifier.model.client import Client
from notifier.model.nearest import near_client, near_issuer
from notifier.model.registry import Issuer, Registry

ISS, OTHER = "https://id.example.com", "https://b.example.org/realms/b/"
REGISTRY = Registry(
    issuers={ISS: Issuer(iss=ISS), OTHER: Issuer(iss=OTHER, publishers=frozenset({"b"}))},
    clients={
        ISS: {name: Client(iss=ISS, client_id=name, backchannel_logout_uri=None) for name in ("web-shop", "Mail")},
        OTHER: {"wiki": Client(iss=OTHER, client_id="wiki", backchannel_logout_uri=None)},
    },
)


@pytest.mark.parametrize(
    ("iss", "hint"),
    [
        (f"{ISS}/", f"did you mean {ISS}, without the slash at the end?"),
        (OTHER.rstrip("/"), f"did you mean {OTHER}, with a slash at the end?"),
        ("http://id.example.com", f"did you mean {ISS}?"),
        ("https://ID.exampel.com", f"did you mean {ISS}?"),
        ("https://something.else", None),
    ],
)
def test_the_nearest_issuer_is_named(iss: str, hint: str | None) -> None:
    """With what is different, where that is hard to see."""
    found = near_issuer(iss, REGISTRY)
    assert (found and found.text) == hint


@pytest.mark.parametrize(
    ("client_id", "hint"),
    [
        ("web_shop", "did you mean web-shop?"),
        ("mail", "did you mean Mail?"),
        ("Mail ", "did you mean Mail? The given name ends with a blank; remove it"),
        ("“Mail”", "did you mean Mail? The given name begins with the quotation mark “"),
        ("Ma\u200bil", "did you mean Mail? The given name holds the invisible character U+200B"),
        ("wiki", f"there is one of that name at the issuer {OTHER}"),
        ("nothing-like-it", None),
    ],
)
def test_the_nearest_client_is_named(client_id: str, hint: str | None) -> None:
    """Of the same issuer, or that name at another one."""
    found = near_client(ISS, client_id, REGISTRY)
    assert (found is None) == (hint is None)
    assert found is None or found.text.startswith(hint or "")


def test_a_publisher_hears_only_of_its_issuers() -> None:
    """Who may not speak for an issuer does not learn its name from a wrong one."""
    of_b, of_all = near_issuer(OTHER.rstrip("/"), REGISTRY), near_issuer(f"{ISS}/", REGISTRY)
    assert of_b is not None
    assert of_all is not None
    assert [of_b.concerns("b"), of_b.concerns("c"), of_b.concerns(None), of_all.concerns(None)] == [
        True, False, False, True,
    ]  # fmt: skip
