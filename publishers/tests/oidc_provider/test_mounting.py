"""How an application brings in the package: under a path of Express, with the library's own store, or too late."""

import pytest

from publishers.tests.oidc_provider.clients import ALL
from publishers.tests.oidc_provider.rig import Rig

pytestmark = pytest.mark.full


async def test_under_a_path_in_express(rigged: Rig) -> None:
    """The issuer has the path; the keys are shown there, beside the provider's own."""
    async with rigged.provider(path="/id", redis="") as provider:
        assert {key["kid"] for key in (await provider.jwks())["keys"]} == rigged.keys.providers | rigged.keys.notifiers
        assert not any("d" in key for key in (await provider.jwks())["keys"])
        async with rigged.signed_in(provider, "alice", *ALL) as browser:
            await browser.sign_out("shop", everywhere=False)
            await browser.sign_out()
        declined, whole = await rigged.events.until_of("alice", 2)
        assert declined.event["iss"] == whole.event["iss"] == provider.settings.issuer == browser.claims["shop"]["iss"]
        assert set(declined.clients) == {"shop"}
        assert set(whole.clients) == set(ALL) - {"shop"}


async def test_called_too_late(rigged: Rig) -> None:
    """After `callback()`: the keys are not served, and the first sign-out, which continues, logs it."""
    async with rigged.provider(late=True) as provider:
        async with rigged.signed_in(provider, "alice", *ALL) as browser:
            assert (await browser.sign_out("shop")).status == 303
        await provider.until_logged('"level":"error"', "new Provider")
        await rigged.events.until_of("alice")
