"""How an application brings in the package: under a path of Express, with the library's own store, or too late."""

import pytest

from publishers.tests.oidc_provider.clients import ALL
from publishers.tests.oidc_provider.harness import Harness

pytestmark = pytest.mark.full


async def test_under_a_path_in_express(harness: Harness) -> None:
    """The issuer has the path; the keys are shown there, beside the provider's own."""
    async with harness.provider(path="/id", redis="") as provider:
        assert {
            key["kid"] for key in (await provider.jwks())["keys"]
        } == harness.keys.providers | harness.keys.notifiers
        assert not any("d" in key for key in (await provider.jwks())["keys"])
        async with harness.signed_in(provider, "alice", *ALL) as browser:
            await browser.sign_out("shop", everywhere=False)
            await browser.sign_out()
        declined, whole = await harness.events.until_of("alice", 2)
        assert declined.event["iss"] == whole.event["iss"] == provider.settings.issuer == browser.claims["shop"]["iss"]
        assert set(declined.clients) == {"shop"}
        assert set(whole.clients) == set(ALL) - {"shop"}


async def test_called_too_late(harness: Harness) -> None:
    """After `callback()`: the keys are not served, and the first sign-out, which continues, logs it."""
    async with harness.provider(late=True) as provider:
        async with harness.signed_in(provider, "alice", *ALL) as browser:
            assert (await browser.sign_out("shop")).status == 303
        await provider.until_logged('"level":"error"', "new Provider")
        await harness.events.until_of("alice")
