"""WSO2 Identity Server's applications. The documents are put together from the description of its API."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from notifier.features.registries.list_settings import Wso2Settings
from notifier.features.registries.page_requests import WebReader
from notifier.features.registries.wso2 import Wso2Server
from notifier.model.errors import SourceFault
from tests.features.registries.list_server import page, serving, source

HOOK = "https://shop.example.com/hook"
SHOWN = {"client_name": "app", "redirect_uris": ["https://shop.example.com/callback"]}
APPLICATIONS = "/t/acme/api/server/v1/applications"


def _oidc(client_id: str, **members: Any) -> dict[str, Any]:
    """Return the OIDC configuration of an application."""
    return {
        "clientId": client_id,
        "clientSecret": "hunter2",
        "state": "ACTIVE",
        "grantTypes": ["authorization_code"],
        "callbackURLs": ["https://shop.example.com/callback"],
        "idToken": {"expiryInSeconds": 3600, "audience": [], "encryption": {"enabled": False, "algorithm": "none"}},
        "logout": {"backChannelLogoutUrl": HOOK},
        **members,
    }


class _Wso2:
    """A tenant with these applications: UUID → what it answers, or a status."""

    def __init__(self, applications: dict[str, Any]) -> None:
        self.applications = applications
        self.names: dict[str, str] = {}
        self.asked: Counter[str] = Counter()
        self.at_a_time = [0, 0]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        assert request.headers["Authorization"] == "Basic cmVhZGVyOmh1bnRlcjI="
        if request.path == APPLICATIONS:
            return self._list(int(request.query["offset"]), int(request.query["limit"]))
        name, _, rest = request.path.removeprefix(APPLICATIONS + "/").partition("/")
        assert rest == "inbound-protocols/oidc"
        self.asked[name] += 1
        self.at_a_time[0] += 1
        self.at_a_time[1] = max(self.at_a_time)
        await asyncio.sleep(0)
        self.at_a_time[0] -= 1
        found = self.applications[name]
        return web.Response(status=found) if isinstance(found, int) else page(found)

    def _list(self, offset: int, limit: int) -> web.Response:
        found = list(self.applications)[offset : offset + limit]
        items = [{"id": name, "name": self.names.get(name, "app"), "access": "READ"} for name in found]
        whole = {"totalResults": len(self.applications), "startIndex": offset + 1, "count": len(items)}
        return page({**whole, "applications": items, "links": []})


def _reader(url: str, folder: Path, now: list[float]) -> WebReader:
    (folder / "secret").write_text("Basic cmVhZGVyOmh1bnRlcjI=\n")
    headers = {"Authorization": {"file": "secret"}}
    settings = source("wso2", folder, url=f"{url}/t/acme/", headers=headers)
    server = Wso2Server(settings.of_kind(Wso2Settings), lambda: now[0])
    return WebReader(server.collect, None, settings.timeout)


async def test_each_application_is_requested_once_and_then_in_turn(tmp_path: Path) -> None:
    """The UUID is an alias. A new or renamed application is asked at once, all others once in `RECHECK_SECONDS`."""
    wso2, now = _Wso2({f"u{nth:03}": _oidc(f"c{nth:03}") for nth in range(150)}), [0.0]
    async with serving(wso2.answer) as url:
        reader = _reader(url, tmp_path, now)
        first = await reader.read(None)
        assert len(first.rows) == 150
        assert set(wso2.asked.values()) == {1}
        assert first.rows[7] == {"client_id": "c007", "aliases": ["u007"], "backchannel_logout_uri": HOOK, **SHOWN}

        wso2.applications["new"] = _oidc("new")
        wso2.names["u100"] = "renamed"
        wso2.asked.clear()
        second = await reader.read(first)
        assert wso2.asked == {"new": 1, "u100": 1}
        assert second.rows[7] is first.rows[7]

        wso2.applications["u120"] = _oidc("c120", logout={"backChannelLogoutUrl": f"{HOOK}/2"})
        wso2.asked.clear()
        for _ in range(10):
            now[0] += 60
            second = await reader.read(second)
        assert max(wso2.asked.values()) == 2
        assert len(wso2.asked) == 151
        assert {row["client_id"]: row for row in second.rows}["c120"]["backchannel_logout_uri"] == f"{HOOK}/2"

        del wso2.applications["u000"]
        assert len((await reader.read(second)).rows) == 150
    assert wso2.at_a_time[1] <= 4


async def test_an_application_beyond_a_bound_costs_itself_alone(tmp_path: Path) -> None:
    """Both in the list, by its place there, and when it is asked. The end of a page may be such ones."""
    wso2 = _Wso2({f"u{nth:03}": _oidc(f"c{nth:03}") for nth in range(150)})
    for nth in (5, *range(90, 105)):
        wso2.names[f"u{nth:03}"] = "x" * 300_000
    wso2.applications["u007"] = _oidc("c007", padding="x" * 300_000)
    async with serving(wso2.answer) as url:
        answer = await _reader(url, tmp_path, [0.0]).read(None)
    assert len(answer.rows) == 150 - 17
    faults = {fault.path: fault.text for fault in answer.faults}
    assert set(faults) == {"u007", "[5]", *(f"[{nth}]" for nth in range(90, 105))}
    assert "is larger than 256 KiB" in faults["[5]"]
    assert "is larger than 256 KiB" in faults["u007"]


async def test_an_applications_settings_become_metadata(tmp_path: Path) -> None:
    """No secret is stored; an application without OIDC is left out; a damaged application is a separate fault."""
    encrypted = {"idToken": {"encryption": {"enabled": True, "algorithm": "RSA-OAEP", "method": "A128GCM"}}}
    wso2 = _Wso2(
        {
            "saml": 404,
            "damaged": 500,
            "none": _oidc("none", logout={}),
            "null": _oidc("null", logout=None, idToken=None, subject=None),
            "pairwise": _oidc("pairwise", subject={"subjectType": "PAIRWISE"}, logout={"frontChannelLogoutUrl": HOOK}),
            "es": _oidc("es", idToken={"idTokenSignedResponseAlg": "ES256"}),
            "encrypted": _oidc("encrypted", **encrypted),
            "wrong": _oidc("wrong", logout={"backChannelLogoutUrl": "regexp=(a|b)"}),
        }
    )
    async with serving(wso2.answer) as url:
        answer = await (reader := _reader(url, tmp_path, [0.0])).read(None)
        assert "hunter2" not in f"{answer}{reader!r}{vars(reader)}"
        rows = [dict(row) for row in answer.rows]
        assert [row for row in rows if row.pop("aliases") == [row["client_id"]]] == [
            {"client_id": "none", **SHOWN},
            {"client_id": "null", **SHOWN},
            {"client_id": "pairwise", "frontchannel_logout_uri": HOOK, "subject_type": "pairwise", **SHOWN},
            {"client_id": "es", "backchannel_logout_uri": HOOK, "id_token_signed_response_alg": "ES256", **SHOWN},
            {
                "client_id": "encrypted",
                "backchannel_logout_uri": HOOK,
                "id_token_encrypted_response_alg": "RSA-OAEP",
                "id_token_encrypted_response_enc": "A128GCM",
                **SHOWN,
            },
        ]
        assert [fault.path for fault in answer.faults] == ["damaged", "wrong"]
        wso2.applications = dict.fromkeys(wso2.applications, 500)
        wso2.names = dict.fromkeys(wso2.applications, "renamed")
        assert len((await reader.read(None)).rows) == 5
        with pytest.raises(SourceFault, match=r"no application can be read; the first, .*500"):
            await _reader(url, tmp_path, [0.0]).read(None)


async def test_an_interrupted_reading_is_continued(tmp_path: Path) -> None:
    """Applications that were read before are not requested again."""
    wso2 = _Wso2({f"u{nth}": _oidc(f"c{nth}") for nth in range(20)})
    down = ["u15"]

    async def broken(request: web.Request) -> web.StreamResponse:
        if any(f"/{name}/" in request.path for name in down):
            return web.Response(status=503)
        return await wso2.answer(request)

    async with serving(broken) as url:
        reader = _reader(url, tmp_path, [0.0])
        with pytest.raises(SourceFault, match="503"):
            await reader.read(None)
        assert len(wso2.asked) >= 12
        down.clear()
        assert len((await reader.read(None)).rows) == 20
    assert wso2.asked.total() <= 20 + 4  # the requests in flight


async def test_an_empty_list_of_applications_is_a_fault(tmp_path: Path) -> None:
    """A server always has built-in applications. It shows none to a user without the permission."""
    async with serving(_Wso2({}).answer) as url:
        with pytest.raises(SourceFault, match="internal_application_mgt_view"):
            await _reader(url, tmp_path, [0.0]).read(None)
