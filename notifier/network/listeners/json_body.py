"""Reads the JSON body of a request, as UTF-8 whatever its `charset` says: JSON has no other (RFC 8259 §8.1).

aiohttp's own ways decode by it. Among Python's codecs is punycode, which takes seconds for 128 KiB.
"""

import json
from typing import Any

from aiohttp import web


async def json_object(request: web.Request) -> dict[str, Any] | None:
    """Return the object in the body; None if there is none."""
    try:
        content = json.loads((await request.read()).decode())
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
