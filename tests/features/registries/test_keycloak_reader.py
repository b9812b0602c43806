"""Keycloak as a registry source, against a fake that fails on demand."""

import traceback
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import ValidationError

from notifier.configuration.clients.client_rows import ClientsReader
from notifier.features.registries.readers import build_reader
from notifier.model.errors import SourceFault
from tests.features.registries.fake_keycloak import SECRET, FakeKeycloak, client, fake_keycloak
from tests.settings.whole_settings import SOURCE_SETTINGS


def reader(url: str, within: str = "30s", **more: Any) -> ClientsReader:
    settings = {"url": url, "realm": "demo", "client_id": "notifier", "client_secret": SECRET, **more}
    return build_reader(SOURCE_SETTINGS.model_validate({"keycloak": settings, "timeout": within}))


async def fault_of(fake: FakeKeycloak, **more: Any) -> str:
    """Return the error of a reading. Neither its text nor its traceback contains a secret."""
    with pytest.raises(SourceFault) as caught:
        await reader(fake.url, "30s", **more).read(None)
    shown = "".join(traceback.format_exception(caught.value, chain=True)) + repr(caught.value)
    assert SECRET not in shown
    assert "secret-of-" not in shown
    assert "\n" not in str(caught.value)
    return str(caught.value)


def saying(status: int, **content: Any) -> Any:
    """Return a fault that answers each request with this status and content."""

    async def fault(_: web.Request, __: int) -> web.Response:
        return web.json_response(content, status=status)

    return fault


async def test_all_clients_are_read_with_one_token() -> None:
    """In pages, by the client-credentials grant. Of each client only what concerns its logout is kept."""
    async with fake_keycloak(250) as fake:
        fake.clients["frag"] = client("frag", attributes={"backchannel.logout.url": "https://a.example.com/#x"})
        answer = await reader(f"{fake.url}/").read(None)
    assert [row["client_id"] for row in answer.rows] == [f"app-{nth:04}" for nth in range(250)]
    assert answer.rows[7] == {
        "client_id": "app-0007",
        "issuer": f"{fake.url}/realms/demo",
        "backchannel_logout_uri": "https://app-0007.example.com/logout",
        "backchannel_logout_session_required": False,
        "id_token_signed_response_alg": "RS256",
    }
    assert [fault.path for fault in answer.faults] == ["frag"]
    assert "secret" not in repr(answer)
    assert fake.forms == [{"grant_type": "client_credentials", "client_id": "notifier", "client_secret": SECRET}]
    assert fake.pages == [0, 99, 198, 250]


async def test_the_source_sets_the_issuer_and_the_front_end_address() -> None:
    """`url` may lead past the proxy that users see."""
    async with fake_keycloak(1) as fake:
        fake.clients["rel"] = client("rel", rootUrl="${authBaseUrl}", attributes={"backchannel.logout.url": "/x"})
        settings = {"url": fake.url, "realm": "demo", "client_id": "notifier", "client_secret": SECRET}
        issuer = "https://id.example.com/auth/realms/demo"
        source = SOURCE_SETTINGS.model_validate({"issuer": issuer, "keycloak": settings})
        answer = await build_reader(source).read(None)
    assert answer.rows[1]["backchannel_logout_uri"] == "https://id.example.com/auth/x"
    assert not any("issuer" in row for row in answer.rows)


async def test_a_token_that_ran_out_is_renewed() -> None:
    """In the middle of a reading, as often as it takes."""

    async def late(_: web.Request, nth: int) -> web.Response | None:
        return web.json_response({"error": "HTTP 401 Unauthorized"}, status=401) if nth in (2, 4) else None

    async with fake_keycloak(250) as fake:
        fake.page_fault = late
        answer = await reader(fake.url).read(None)
        assert len(answer.rows) == 250
        assert len(fake.tokens) == 3
        fake.page_fault = saying(401, error="HTTP 401 Unauthorized")
        fake.tokens.clear()
        assert "it refuses the token that it just gave" in await fault_of(fake)
    assert len(fake.tokens) == 2


async def test_clients_added_or_removed_meanwhile_hide_no_other() -> None:
    """Pages by offset shift; and a proxy may answer with the page before."""

    async def shifting(request: web.Request, nth: int) -> web.Response | None:
        if nth == 2:
            for gone in range(0, 90, 3):
                del fake.clients[f"app-{gone:04}"]
        if nth == 5:
            fake.clients["aaa"] = client("aaa")
            return web.json_response([fake.clients[name] for name in sorted(fake.clients)][:100])
        return None

    async with fake_keycloak(350) as fake:
        fake.page_fault = shifting
        answer = await reader(fake.url).read(None)
    found = [str(row["client_id"]) for row in answer.rows]
    assert len(found) == len(set(found))
    assert set(found) >= fake.clients.keys() - {"aaa"}


@pytest.mark.parametrize(
    ("status", "content", "words"),
    [
        (400, {"error": "unauthorized_client", "error_description": "INVALID_CREDENTIALS: Invalid client credentials"},
         "client_id notifier or its secret is wrong"),
        (403, {"error": "invalid_request", "error_description": "HTTPS required"}, "https only"),
        (404, {}, "/protocol/openid-connect/token answered 404: there is no realm demo at"),
        (503, {}, "/protocol/openid-connect/token answered 503: its own fault; see its log"),
        (200, {"token": SECRET}, "without an access token"),
        (200, {"access_token": "a\nb"}, "without an access token"),
    ],
)  # fmt: skip
async def test_a_token_that_is_refused_names_the_setting(status: int, content: dict[str, str], words: str) -> None:
    """Keycloak's own words are read, and never shown."""
    async with fake_keycloak() as fake:
        fake.token_fault = saying(status, **content)
        assert words in await fault_of(fake)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (403, "/clients answered 403: give the role view-clients of realm-management"),
        (404, "check `realm` (capitals matter) and the path of `url` (/auth in old versions"),
        (429, "/clients answered 429, and asks to wait for 999 s: too many requests; give the source a longer `every`"),
        (500, "/clients answered 500: its own fault; see its log"),
        (302, "a redirect, which is not followed"),
        (200, "its list of clients is not a list"),
    ],
)
async def test_a_page_that_is_refused_in_the_middle_ends_the_reading(status: int, words: str) -> None:
    """Part of the clients is never taken for all."""

    async def fault(_: web.Request, nth: int) -> web.Response | None:
        answer = {"clients": [client("app-0001")]} if status == 200 else {"error": SECRET}
        headers = {"Location": "https://elsewhere.example.com/", "Retry-After": "999"}
        return web.json_response(answer, status=status, headers=headers) if nth == 2 else None

    async with fake_keycloak() as fake:
        fake.page_fault = fault
        assert words in await fault_of(fake)


async def test_the_secret_is_read_from_its_file_each_time(tmp_path: Path) -> None:
    """A new secret counts at the next reading. An error of the file is named."""
    file = tmp_path / "kc"
    file.write_text("first\n")
    async with fake_keycloak(1) as fake:
        ours = reader(fake.url, client_secret=None, client_secret_file=str(file))
        await ours.read(None)
        file.write_text("second\r\n")
        await ours.read(None)
        assert [form["client_secret"] for form in fake.forms] == ["first", "second"]
        for content, words in (
            (b"\n", "is empty; write the secret into it"),
            (b"a\nb", "must hold one line of text"),
            (b"\xff", "is not UTF-8 text"),
            (None, "cannot be read"),
        ):
            file.unlink() if content is None else file.write_bytes(content)
            with pytest.raises(SourceFault, match=words):
                await ours.read(None)


SETTINGS = {"url": "https://kc.example.com", "realm": "demo", "client_id": "notifier", "client_secret": SECRET}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"client_secret": None}, "needs client_secret or client_secret_file"),
        ({"client_secret_file": __file__}, "needs client_secret or client_secret_file; it has both"),
        ({"url": "https://kc.example.com/realms/demo"}, "must end before /realms"),
        ({"url": "https://kc.example.com/auth/admin/"}, "must end before /admin"),
        ({"realm": "a/b"}, "must be the realm's name alone"),
        ({"default_algorithm": "HS512"}, "'RS256'"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(wrong: dict[str, Any], words: str) -> None:
    """At start, without the secret."""
    with pytest.raises(ValidationError, match=words) as caught:
        SOURCE_SETTINGS.model_validate({"keycloak": {**SETTINGS, **wrong}})
    assert SECRET not in str(caught.value)


def test_the_secret_is_never_shown_by_its_settings() -> None:
    """Neither by what a debugger prints nor as JSON."""
    settings = SOURCE_SETTINGS.model_validate({"keycloak": SETTINGS})
    assert SECRET not in repr(settings) + str(settings) + settings.model_dump_json() + repr(build_reader(settings))
