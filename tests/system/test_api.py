"""The API of a running worker: it describes every route, and each route requires a token with its scope."""

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest

from notifier.service.operator_routes import GONE
from tests.network.listeners.described import described_at
from tests.system.site import API_TOKEN, ISSUER, Site
from tests.system.waiting import until
from tests.system.worker_process import worker

OPENAPI = "/v1/openapi.json"
TOKENLESS = (OPENAPI, "/v1/sign-in", "/v1/sign-in/token")  # for who has no token yet
READER = "reader-bearer-token-1c55"


@pytest.mark.full
async def test_every_answer_matches_the_openapi_document(tmp_path: Path) -> None:
    """Schemathesis requests every operation of a worker with all features, by the schema and against it."""
    site = Site(tmp_path, f"sqlite:{tmp_path / 'queue.db'}")
    site.serve_web(issuers={ISSUER: {"url": f"{ISSUER}/notify"}})
    site.write()
    tokens = [{"name": "all", "token": READER, "scopes": ["publish", "read", "repair"]}]
    (tmp_path / "tokens.yaml").write_text(json.dumps(tokens))
    async with worker(site) as running:
        url = await running.at("api")
        operations = await asyncio.to_thread(described_at, url, 10, READER)
        async with aiohttp.ClientSession() as http, http.get(url + OPENAPI) as answer:
            paths = (await answer.json())["paths"]
        assert operations == sorted(f"{method.upper()} {path}" for path, of in paths.items() for method in of)
        assert await running.stop() == 0


async def test_every_route_requires_a_token_with_its_scope(tmp_path: Path) -> None:
    """401 without one, 403 with one of another scope, whatever else is wrong; and 401 once it is taken out."""
    site = Site(tmp_path, f"sqlite:{tmp_path / 'queue.db'}")
    tokens = [
        {"name": "idp", "token": API_TOKEN, "scopes": ["publish"]},
        {"name": "reader", "token": READER, "scopes": ["read"]},
    ]
    (tmp_path / "tokens.yaml").write_text(json.dumps(tokens))
    async with worker(site) as running, aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as http:
        url = await running.at("api")

        async def ask(method: str, path: str, bearer: str | None) -> int:
            sent = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
            async with http.request(method, url + path.replace("{", "").replace("}", ""), headers=sent) as answer:
                return answer.status

        async with http.get(url + OPENAPI) as answer:
            document = await answer.json()
        asked = [(path, method, logged) for path, of in document["paths"].items() for method, logged in of.items()]
        assert {path for path, _, _ in asked} >= {OPENAPI, "/v1/events", "/v1/status", "/v1/log-level"}
        assert not {path for _, path in GONE} & document["paths"].keys()
        for path, method, logged in asked:
            if path in TOKENLESS:
                assert await ask(method, path, "wrong") not in (401, 403), path
                continue
            if path.startswith("/v1/events/"):  # sources have other proofs: there are none here
                assert await ask(method, path, API_TOKEN) == 404, path
                continue
            [scope] = logged["security"][0]["token"]
            assert await ask(method, path, None) == 401, path
            assert await ask(method, path, "wrong") == 401, path
            assert await ask(method, path, READER if scope == "publish" else API_TOKEN) == 403, path
        assert await ask("get", "/v1/status", READER) == 200
        (tmp_path / "tokens.yaml").write_text(json.dumps(tokens[:1]))
        await until(lambda: ask("get", "/v1/status", READER), lambda status: status == 401)
        assert await running.stop() == 0
