"""The browsers that pages are tried in, each with the cookies of other sites allowed or blocked."""

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager

from tests.browsers.devtools import DrivenChromium, driven_chromium
from tests.browsers.firefox import DrivenFirefox, driven_firefox

KINDS = ("chromium", "firefox")


def browser_of(
    kind: str, keys: Iterable[str], *, third_party_cookies: bool
) -> AbstractAsyncContextManager[DrivenChromium | DrivenFirefox]:
    """One of the two, not started. All names of tests lead to this machine. Firefox trusts more than `keys`."""
    if kind == "firefox":
        return driven_firefox(third_party_cookies=third_party_cookies)
    return driven_chromium(hosts={"*.test": "127.0.0.1"}, keys=keys, third_party_cookies=third_party_cookies)
