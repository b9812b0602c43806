"""The API of Kubernetes, as the nodes use it."""

import ssl
from types import TracebackType
from typing import Any, Self

import aiohttp

Body = dict[str, Any]
APPLY = "application/apply-patch+yaml"
MERGE = "application/strategic-merge-patch+json"


class Api:
    """A session with the API server, while it is entered."""

    def __init__(self, url: str, token: str, trust: ssl.SSLContext) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"}
        self._trust = trust
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._trust, limit=50)
        self._session = aiohttp.ClientSession(self._url, headers=self._headers, connector=connector)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def ready(self) -> bool:
        """Whether it takes requests yet."""
        try:
            return (await self.call("GET", "/readyz"))[0] == 200
        except (aiohttp.ClientError, ValueError):
            return False

    async def call(
        self, method: str, path: str, body: Body | None = None, kind: str = "application/json"
    ) -> tuple[int, Body]:
        """Status and answer of one request."""
        assert self._session is not None
        headers = {} if body is None else {"Content-Type": kind}
        async with self._session.request(method, path, json=body, headers=headers) as answer:
            text = await answer.text()
            return answer.status, (await answer.json() if text.startswith("{") else {})

    async def get(self, path: str) -> Body | None:
        """An object or a list; None where there is none."""
        status, body = await self.call("GET", path)
        return body if status == 200 else None

    async def items(self, path: str) -> list[Body] | None:
        """The objects of a list; None where the server gives none just now."""
        found = await self.get(path)
        return None if found is None else list(found.get("items") or ())

    async def apply(self, path: str, body: Body) -> int:
        """Create an object, or a part of it, from `body`; return the status."""
        return (await self.call("PATCH", f"{path}?fieldManager=nodes&force=true", body, APPLY))[0]

    async def define(self, definition: Body) -> None:
        """Make a kind of custom resource known."""
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{definition['metadata']['name']}"
        status = await self.apply(path, definition)
        assert status in (200, 201), f"{path}: {status}"

    async def patch(self, path: str, body: Body) -> int:
        """Lay `body` over an object; the status."""
        return (await self.call("PATCH", path, body, MERGE))[0]
