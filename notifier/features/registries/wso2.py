"""The registry source `wso2`: the applications of WSO2 Identity Server, by its API.

`GET /api/server/v1/applications` lists the UUID and name of each application, `GET …/{UUID}/inbound-protocols/oidc`
returns the client ID and URIs of one (404: it does not use OIDC). The list does not show a changed URI. An application
is read if it is new or its entry has changed, and otherwise once in RECHECK_SECONDS. Results are kept in memory, so
that a first reading that exceeds `timeout` is continued by the next. Events of WSO2 name an application by its UUID,
which is therefore an alias of the client ID.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping
from math import ceil
from typing import Any
from urllib.parse import quote

from notifier.configuration.clients.client_rows import Row, SourceAnswer
from notifier.configuration.clients.remote_rows import ListAmount, RowCollector, redirect_uris
from notifier.features.registries.list_settings import Wso2Settings
from notifier.features.registries.page_requests import ShiftingPages, ask, section_of
from notifier.model.documents.cloudevents import MAX_TEXT_LENGTH
from notifier.model.errors import AnswerFault, InputIssue, SourceFault
from notifier.model.record import record
from notifier.network.http.json_client import JsonWeb
from notifier.network.http.json_parts import OutOfBounds

PAGE_SIZE = 100
RECHECK_SECONDS = 600.0  # in which each application is read again, a share at each reading of the list
MAX_CONCURRENT_REQUESTS = 4
_SCOPE = "internal_application_mgt_view (Console → the user's role → Application Management, view)"
_ADVICE = {
    401: "the credentials in headers are wrong or have run out",
    403: f"the user or token lacks the permission {_SCOPE}",
    404: "this is not a WSO2 Identity Server; `url` must be its address, with its tenant if any: https://is.example.com/t/acme",
}


@record
class _Entry:
    """The used parts of an application's entry in the list, and a digest of the whole entry.

    `fault`: the entry exceeds a limit and was not parsed.
    """

    digest: bytes
    name: str | None = None
    fault: str | None = None


@record
class _Application:
    """An application as it was read at `read_at` (monotonic seconds), and its entry in the list at that time.

    `result`: its row, or its error; None if it does not use OIDC.
    """

    entry: _Entry
    result: Row | InputIssue | None
    read_at: float


class Wso2Server:
    """Reads the applications of one server, or of one tenant, and keeps them. `monotonic` never jumps."""

    def __init__(self, settings: Wso2Settings, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._monotonic = monotonic
        self._applications: dict[str, _Application] = {}  # by UUID
        self._last_read_at = monotonic()

    async def collect(self, server: JsonWeb, last: SourceAnswer | None) -> RowCollector:
        """Return all applications with OIDC. Raises SourceFault."""
        headers, now = self._settings.headers or {}, self._monotonic()
        entries = await self._read_list(server, headers)
        for removed_id in self._applications.keys() - entries.keys():
            del self._applications[removed_id]
        await self._read_applications(server, headers, entries, self._choose_due(entries, now))
        self._last_read_at = now
        results = [self._applications[uuid].result for uuid in entries]
        issues = [result for result in results if isinstance(result, InputIssue)]
        if len(issues) == len(entries):
            raise SourceFault(f"no application can be read; the first, {issues[0].path}: {issues[0].text}")
        collector = RowCollector(last)
        await collector.add_all(result for result in results if result is not None)
        return collector

    async def _read_list(self, server: JsonWeb, headers: Mapping[str, str]) -> dict[str, _Entry]:
        """Return the entry of each application by UUID. The key of an entry that exceeds a limit is its position."""
        entries: dict[str, _Entry] = {}
        pages = ShiftingPages(PAGE_SIZE)
        while pages.first is not None:
            query = f"limit={PAGE_SIZE}&offset={pages.first}&attributes=clientId"
            answer = await ask(server, f"{self._settings.url}/api/server/v1/applications?{query}", headers, _ADVICE)
            applications = answer.content.get("applications") if isinstance(answer.content, dict) else None
            is_past_end = not isinstance(applications, list) and pages.first > 0
            if is_past_end:
                applications = []  # some versions omit the member `applications`
            if not isinstance(applications, list) or not all(map(_is_entry, applications)):
                raise SourceFault("its list of applications is not a list; is `url` that of a WSO2 Identity Server?")
            if not applications and not entries:
                raise SourceFault(f"its list has no application, which cannot be: give the permission {_SCOPE}")
            keys = [_key_of(entry, position) for position, entry in enumerate(applications, pages.first)]
            if pages.accept(keys):
                entries |= dict(zip(keys, map(_to_entry, applications), strict=True))
        return entries

    def _choose_due(self, entries: Mapping[str, _Entry], now: float) -> list[str]:
        """Return the applications that need to be read, then some of the others, the least recently read first.

        The number of the others is a share of all applications. The share grows with the time since the last reading of
        the list, and is 1 after RECHECK_SECONDS.
        """
        needed = [uuid for uuid, entry in entries.items() if self._needs_reading(uuid, entry)]
        share = min(1.0, (now - self._last_read_at) / RECHECK_SECONDS)
        others = sorted(entries.keys() - set(needed), key=lambda uuid: self._applications[uuid].read_at)
        return needed + others[: ceil(len(entries) * share)]

    def _needs_reading(self, uuid: str, entry: _Entry) -> bool:
        """Return whether the application is new, its entry in the list has changed, or it could never be read."""
        application = self._applications.get(uuid)
        return application is None or application.entry != entry or isinstance(application.result, InputIssue)

    async def _read_applications(
        self, server: JsonWeb, headers: Mapping[str, str], entries: Mapping[str, _Entry], due: list[str]
    ) -> None:
        """Read the applications `due`, a few at a time. Raises the first SourceFault. Earlier results stay."""
        remaining, amount = iter(due), ListAmount()  # shared by the tasks
        for result in (self._applications[uuid].result for uuid in self._applications.keys() - set(due)):
            amount.add(result or {})

        async def read_remaining() -> None:
            for uuid in remaining:
                result = await self._read_application(server, headers, uuid, entries[uuid])
                previous = self._applications.get(uuid)
                if isinstance(result, InputIssue) and previous is not None:
                    result = previous.result  # the last valid URIs stay in use
                amount.add(result or {})
                self._applications[uuid] = _Application(entry=entries[uuid], result=result, read_at=self._monotonic())

        tasks = [asyncio.ensure_future(read_remaining()) for _ in range(MAX_CONCURRENT_REQUESTS)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read_application(
        self, server: JsonWeb, headers: Mapping[str, str], uuid: str, entry: _Entry
    ) -> Row | InputIssue | None:
        """Return the row of an application, or its error; None without OIDC. Raises SourceFault if WSO2 fails."""
        if entry.fault is not None:
            return InputIssue(uuid, entry.fault)
        url = f"{self._settings.url}/api/server/v1/applications/{quote(uuid, safe='')}/inbound-protocols/oidc"
        try:
            answer = await ask(server, url, headers, _ADVICE, expected=(404, 500))
        except AnswerFault as fault:
            return InputIssue(uuid, str(fault))
        if answer.status == 404:
            return None
        if answer.status == 500:  # one damaged application must not hide all others
            return InputIssue(uuid, "WSO2 answered 500 when asked for this application; see its log")
        if not isinstance(answer.content, dict):
            raise SourceFault(f"its application {uuid} is not an object; check `url`")
        return _to_row(uuid, entry.name, answer.content) if answer.content.get("clientId") else None


def _is_entry(value: Any) -> bool:
    if isinstance(value, OutOfBounds):
        return True
    return isinstance(value, dict) and isinstance(value.get("id"), str)


def _key_of(entry: Mapping[str, Any] | OutOfBounds, position: int) -> str:
    return f"[{position}]" if isinstance(entry, OutOfBounds) else str(entry["id"])


def _to_entry(entry: Mapping[str, Any] | OutOfBounds) -> _Entry:
    digest = hashlib.blake2b(repr(entry).encode(errors="backslashreplace"), digest_size=16).digest()
    if isinstance(entry, OutOfBounds):
        return _Entry(digest=digest, fault=entry.text)
    name = entry.get("name")
    return _Entry(digest=digest, name=name[:MAX_TEXT_LENGTH] if isinstance(name, str) else None)


def _to_row(uuid: str, name: str | None, oidc: Mapping[str, Any]) -> Row:
    """Return the client metadata of an application, from its name in the list and its OIDC configuration."""
    logout, tokens = section_of(oidc, "logout"), section_of(oidc, "idToken")
    encryption = section_of(tokens, "encryption")
    is_encrypted = encryption.get("enabled") is True
    front_channel = logout.get("frontChannelLogoutUrl")
    subject_type = section_of(oidc, "subject").get("subjectType")
    return {
        "client_id": oidc.get("clientId"),
        "aliases": [uuid],
        "backchannel_logout_uri": logout.get("backChannelLogoutUrl"),
        "frontchannel_logout_uri": front_channel,
        "redirect_uris": redirect_uris(oidc.get("callbackURLs"), front_channel),
        "client_name": name,
        "subject_type": subject_type.lower() if isinstance(subject_type, str) else None,
        "id_token_signed_response_alg": tokens.get("idTokenSignedResponseAlg"),
        "id_token_encrypted_response_alg": encryption.get("algorithm") if is_encrypted else None,
        "id_token_encrypted_response_enc": encryption.get("method") if is_encrypted else None,
    }
