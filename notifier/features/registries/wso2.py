"""Reads the applications of WSO2 Identity Server by its API: a list without addresses, then each application by itself.

| path below `url` | |
|---|---|
| `GET /api/server/v1/applications?limit&offset&attributes=clientId` | the id (a UUID), name and so on of each |
| `GET /api/server/v1/applications/{id}/inbound-protocols/oidc` | its client id, addresses and secret; 404: no OIDC |

The list does not show that an address has changed. An application is therefore read at once if it is new or its entry
has changed, and otherwise once in `RECHECK_SECONDS`, the least recently read first. Results are kept in memory, so a
first reading that takes longer than `timeout` continues at the next. Events of WSO2 name an application by its UUID,
which is an alias of its client id.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from math import ceil
from typing import Any, TypeAlias
from urllib.parse import quote

from notifier.configuration.clients.client_rows import Row, SourceAnswer
from notifier.configuration.clients.remote_rows import RowCollector, redirect_uris
from notifier.features.registries.list_settings import Wso2Settings
from notifier.features.registries.page_requests import ShiftingPages, ask
from notifier.model.errors import AnswerFault, InputIssue, SourceFault
from notifier.model.frozen import frozen
from notifier.network.http.json_over_http import JsonWeb, open_web
from notifier.network.http.json_parts import OutOfBounds
from notifier.settings.registry_settings import RegistrySourceSettings

PAGE = 100
RECHECK_SECONDS = 600.0  # seconds in which each application is read again, a few at each reading of the list
MAX_CONCURRENT_REQUESTS = 4
_SCOPE = "internal_application_mgt_view (Console → the user's role → Application Management, view)"
_ADVICE = {
    401: "the credentials in headers are wrong or have run out",
    403: f"the user or token lacks the permission {_SCOPE}",
    404: "this is not a WSO2 Identity Server; `url` must be its address, with its tenant if any: https://is.example.com/t/acme",
}


_Item: TypeAlias = Mapping[str, Any] | OutOfBounds
"""The list's entry of an application. OutOfBounds: it exceeds a limit, and was not read."""


@frozen
class _Application:
    """The row of an application, and its entry in the list, as read at `read_at` (steady). `result` None: not OIDC."""

    listed: _Item
    result: Row | InputIssue | None
    read_at: float


class Wso2Reader:
    """All applications of one server, or of one tenant."""

    def __init__(
        self,
        source: RegistrySourceSettings,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = source.of_kind(Wso2Settings)
        self._source = source
        self._clock = clock
        self._ticks = ticks
        self._applications: dict[str, _Application] = {}
        self._last_tick = ticks()

    async def read(self, last: SourceAnswer | None) -> SourceAnswer:
        """Return all applications with OIDC; `last` itself if nothing has changed. Raises SourceFault."""
        headers = self._settings.headers or {}
        async with open_web(self._settings.tls, self._source.timeout) as server:
            at, tick = self._clock(), self._ticks()
            listed = await self._list(server, headers)
            for removed_id in self._applications.keys() - listed.keys():
                del self._applications[removed_id]
            await self._read_applications(server, headers, listed, self._due(listed, tick))
            self._last_tick = tick
            faults = [answer for name in listed if isinstance(answer := self._applications[name].result, InputIssue)]
            if len(faults) == len(listed):
                raise SourceFault(f"no application can be read; the first, {faults[0].path}: {faults[0].text}")
        collector = RowCollector(last)
        await collector.add_all(
            self._applications[name].result for name in listed if self._applications[name].result is not None
        )
        return collector.answer(at)

    async def _list(self, server: JsonWeb, headers: Mapping[str, str]) -> dict[str, _Item]:
        """Return the list's entry of each application, by UUID; of an entry that exceeds a limit, by position."""
        listed: dict[str, _Item] = {}
        pages = ShiftingPages(PAGE)
        while pages.first is not None:
            query = f"limit={PAGE}&offset={pages.first}&attributes=clientId"
            answer = await ask(server, f"{self._settings.url}/api/server/v1/applications?{query}", headers, _ADVICE)
            applications = answer.content.get("applications") if isinstance(answer.content, dict) else None
            if not isinstance(applications, list) and pages.first:
                applications = []  # some versions leave it out past the end
            if not isinstance(applications, list) or not all(map(_is_known, applications)):
                raise SourceFault("its list of applications is not a list; is `url` that of a WSO2 Identity Server?")
            if not applications and not listed:
                raise SourceFault(f"its list has no application, which cannot be: give the permission {_SCOPE}")
            names = [_name(application, pages.first + nth) for nth, application in enumerate(applications)]
            if pages.take(names):
                listed |= dict(zip(names, applications, strict=True))
        return listed

    def _due(self, listed: Mapping[str, _Item], tick: float) -> list[str]:
        """Return the ids of the applications to read now: all that changed, and a share of the others, oldest first."""
        changed = [name for name, item in listed.items() if self._needs_reading(name, item)]
        share = ceil(len(listed) * min(1.0, (tick - self._last_tick) / RECHECK_SECONDS))
        unchanged = sorted(listed.keys() - set(changed), key=lambda name: self._applications[name].read_at)
        return changed + unchanged[:share]

    def _needs_reading(self, name: str, item: _Item) -> bool:
        """Return True if the application is new, changed in the list, or could not be read."""
        application = self._applications.get(name)
        return application is None or application.listed != item or isinstance(application.result, InputIssue)

    async def _read_applications(
        self, server: JsonWeb, headers: Mapping[str, str], listed: Mapping[str, _Item], due: list[str]
    ) -> None:
        """Read these applications, a few at a time. Raises the first SourceFault; earlier results stay."""

        async def read_some(names: Iterator[str]) -> None:
            for name in names:
                answer = await self._application(server, headers, name, listed[name])
                before = self._applications.get(name)
                if isinstance(answer, InputIssue) and before is not None:
                    answer = before.result  # its last good address stays
                self._applications[name] = _Application(listed=listed[name], result=answer, read_at=self._ticks())

        names = iter(due)
        tasks = [asyncio.ensure_future(read_some(names)) for _ in range(MAX_CONCURRENT_REQUESTS)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _application(
        self, server: JsonWeb, headers: Mapping[str, str], name: str, item: _Item
    ) -> Row | InputIssue | None:
        if isinstance(item, OutOfBounds):
            return InputIssue(name, item.text)
        url = f"{self._settings.url}/api/server/v1/applications/{quote(name, safe='')}/inbound-protocols/oidc"
        try:
            answer = await ask(server, url, headers, _ADVICE, expected=(404, 500))
        except AnswerFault as fault:
            return InputIssue(name, str(fault))
        if answer.status == 404:
            return None
        if answer.status == 500:  # one damaged application must not hide all others
            return InputIssue(name, "WSO2 answered 500 when asked for this application; see its log")
        if not isinstance(answer.content, dict):
            raise SourceFault(f"its application {name} is not an object; check `url`")
        return _row(name, item, answer.content) if answer.content.get("clientId") else None


def _is_known(application: Any) -> bool:
    if isinstance(application, OutOfBounds):
        return True
    return isinstance(application, dict) and isinstance(application.get("id"), str)


def _name(application: _Item, place: int) -> str:
    return f"[{place}]" if isinstance(application, OutOfBounds) else str(application["id"])


def _row(name: str, item: Mapping[str, Any], oidc: Mapping[str, Any]) -> Row:
    logout, tokens, subject = (_section(oidc, part) for part in ("logout", "idToken", "subject"))
    encryption = _section(tokens, "encryption")
    encrypted = encryption.get("enabled") is True
    kind, front_channel, shown = subject.get("subjectType"), logout.get("frontChannelLogoutUrl"), item.get("name")
    return {
        "client_id": oidc.get("clientId"),
        "aliases": [name],
        "backchannel_logout_uri": logout.get("backChannelLogoutUrl"),
        "frontchannel_logout_uri": front_channel,
        "redirect_uris": redirect_uris(oidc.get("callbackURLs"), front_channel),
        "client_name": shown if isinstance(shown, str) else None,
        "subject_type": kind.lower() if isinstance(kind, str) else None,
        "id_token_signed_response_alg": tokens.get("idTokenSignedResponseAlg"),
        "id_token_encrypted_response_alg": encryption.get("algorithm") if encrypted else None,
        "id_token_encrypted_response_enc": encryption.get("method") if encrypted else None,
    }


def _section(whole: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    member = whole.get(name)
    return member if isinstance(member, dict) else {}
