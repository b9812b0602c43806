"""POSTs to a stand-in."""

from collections.abc import Mapping

import aiohttp


async def post(url: str, body: bytes | str, content_type: str, headers: Mapping[str, str] | None = None) -> int:
    """Return the status of the answer."""
    return (await post_text(url, body, content_type, headers))[0]


async def post_text(
    url: str, body: bytes | str, content_type: str, headers: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Return status and text of the answer."""
    sent = {"Content-Type": content_type, **(headers or {})}
    async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=sent) as answer:
        return answer.status, await answer.text()
