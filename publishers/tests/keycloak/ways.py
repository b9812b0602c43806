"""The ways in which a session ends in Keycloak: the action, and the notifications that must follow.

Each is a coroutine that signs somebody in, ends that, and returns the endings of which there must be one event each. A
way that ends nothing goes on to a real end of the same session: since the order is kept, an event that must not be
would have come before.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from publishers.tests.keycloak.ground import BRIEF, DOOMED, IDLE, SHOP, Ground, Visit
from publishers.tests.keycloak.shop_realm import CALLBACK, GOODBYE, SAML

CLEANED = 150.0  # seconds until the cleaner has been there; it comes each minute in 26.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """One event that must come: the session, the clients that it names, and its reason, if it has one."""

    visit: Visit
    clients: Sequence[str]
    reason: str | None = None
    lane: str = "events"
    realm_name: str = SHOP

    @property
    def subs(self) -> Mapping[str, str]:
        """The user as each client knows him."""
        return {name: claims["sub"] for name, claims in self.visit.claims.items()}


Way = Callable[[Ground], Awaitable[Sequence[Ending]]]


async def the_user_signs_out(ground: Ground) -> Sequence[Ending]:
    """With the browser's cookie and a hint. A client that was disabled meanwhile is named, but not notified."""
    visit = await ground.sign_in("web", "app", "pair", "both", "plain", "off")
    off = await ground.client("off")
    await ground.admin("PUT", f"/{SHOP}/clients/{off['id']}", {**off, "enabled": False})
    await visit.browser.sign_out(visit.claims["web"]["raw"], GOODBYE, frames=True)
    return [Ending(visit=visit, clients=("web", "app", "pair", "both", "plain", "off"))]


async def the_user_signs_out_by_a_hint_alone(ground: Ground) -> Sequence[Ending]:
    """From a browser that has lost its cookie."""
    visit = await ground.sign_in("web", "pair")
    await visit.browser.sign_out(visit.claims["web"]["raw"], GOODBYE, cookies=False)
    return [Ending(visit=visit, clients=("web", "pair"))]


async def another_client_signs_the_user_out(ground: Ground) -> Sequence[Ending]:
    """One that no address is known of."""
    visit = await ground.sign_in("web", "app", "plain")
    await visit.browser.sign_out(visit.claims["plain"]["raw"], GOODBYE)
    return [Ending(visit=visit, clients=("web", "app", "plain"))]


async def a_client_signs_the_user_out(ground: Ground) -> Sequence[Ending]:
    """By its refresh token."""
    visit = await ground.sign_in("web", "both", "pair")
    status, _ = await visit.browser.post("logout", visit.refresh_token("web"))
    assert status == 204
    return [Ending(visit=visit, clients=("web", "both", "pair"))]


async def an_administrator_signs_a_user_out(ground: Ground) -> Sequence[Ending]:
    """Of two sessions. Keycloak itself forgets the second one in 26.4."""
    visits = [await ground.sign_in("web", "app")]
    visits.append(await ground.sign_in("web", "pair", name=visits[0].user))
    await ground.admin("POST", f"/{SHOP}/users/{visits[0].sub}/logout")
    return [Ending(visit=visit, clients=[*visit.claims]) for visit in visits]


async def an_administrator_ends_a_session(ground: Ground) -> Sequence[Ending]:
    """The user's other one lives on."""
    visit = await ground.sign_in("web", "both")
    other = await ground.sign_in("web", name=visit.user)
    await ground.admin("DELETE", f"/{SHOP}/sessions/{visit.sid}")
    await other.browser.sign_out(other.claims["web"]["raw"], GOODBYE)
    return [Ending(visit=visit, clients=("web", "both")), Ending(visit=other, clients=("web",))]


async def the_user_ends_another_session(ground: Ground) -> Sequence[Ending]:
    """In the account console: first one, then all others."""
    visit = await ground.sign_in("web")
    others = [await ground.sign_in(*names, name=visit.user) for names in (("web", "app"), ("pair", "web"), ("web",))]
    assert await visit.browser.delete_sessions("web", f"/{others[0].sid}") == 204
    assert await visit.browser.delete_sessions("web") == 204
    await visit.browser.sign_out(visit.claims["web"]["raw"], GOODBYE)
    return [Ending(visit=each, clients=[*each.claims]) for each in (*others, visit)]


async def all_sessions_of_the_realm_end(ground: Ground) -> Sequence[Ending]:
    """`logout-all`."""
    visits = [await ground.sign_in(*names, realm_name=DOOMED) for names in (("web", "pair"), ("app", "web"))]
    await ground.admin("POST", f"/{DOOMED}/logout-all")
    return [
        Ending(visit=visit, clients=[*visit.claims], reason="terminated", lane="bulk", realm_name=DOOMED)
        for visit in visits
    ]


async def a_user_is_deleted(ground: Ground) -> Sequence[Ending]:
    """Nothing of the realm is in Keycloak's caches: what the plug-in reads is read from the database."""
    visit = await ground.sign_in("web", "pair", "plain")
    await ground.admin("POST", f"/{SHOP}/clear-realm-cache")
    await ground.admin("DELETE", f"/{SHOP}/users/{visit.sub}")
    return [Ending(visit=visit, clients=("web", "pair", "plain"), reason="terminated")]


async def the_only_client_revokes_its_token(ground: Ground) -> Sequence[Ending]:
    """That ends the session."""
    visit = await ground.sign_in("web")
    await _revoke(visit, "web")
    return [Ending(visit=visit, clients=("web",))]


async def one_of_two_clients_revokes_its_token(ground: Ground) -> Sequence[Ending]:
    """That ends nothing for the others; it is named no more."""
    visit = await ground.sign_in("web", "app")
    await _revoke(visit, "web")
    await visit.browser.sign_out(visit.claims["app"]["raw"], GOODBYE)
    return [Ending(visit=visit, clients=("app",))]


async def _revoke(visit: Visit, client_id: str) -> None:
    form = visit.refresh_token(client_id)
    status, _ = await visit.browser.post("revoke", {"client_id": client_id, "token": form["refresh_token"]})
    assert status == 200


async def a_consent_is_withdrawn(ground: Ground) -> Sequence[Ending]:
    """One client is notified, and the session continues. Its later end is another event, not a copy."""
    visit = await ground.sign_in("web", "asking")
    await ground.admin("DELETE", f"/{SHOP}/users/{visit.sub}/consents/asking")
    await visit.browser.sign_out(visit.claims["web"]["raw"], GOODBYE)
    return [Ending(visit=visit, clients=("asking",)), Ending(visit=visit, clients=("web",))]


async def a_first_sign_in_is_offline(ground: Ground) -> Sequence[Ending]:
    """Keycloak makes an offline session of the online one, of the same id: no end. Then that is ended."""
    visit = await ground.sign_in("web", scope="openid offline_access")
    status, _ = await visit.browser.post("logout", visit.refresh_token("web"))
    assert status == 204
    return [Ending(visit=visit, clients=("web",))]


async def a_session_ends_beside_an_offline_one(ground: Ground) -> Sequence[Ending]:
    """Both have one id. Each end notifies the clients that it concerns."""
    visit = await ground.sign_in("web")
    await ground.sign_in("app", visit=visit, scope="openid offline_access")
    await visit.browser.sign_out(visit.claims["web"]["raw"], GOODBYE)
    await ground.tap.until(lambda _: len(ground.tap.of(visit.sid)) == 1)
    await ground.admin("DELETE", f"/{SHOP}/sessions/{visit.sid}?isOffline=true")
    return [Ending(visit=visit, clients=("web", "app")), Ending(visit=visit, clients=("app",))]


async def a_client_is_deleted(ground: Ground) -> Sequence[Ending]:
    """Its end does not end the session, and later events do not name it."""
    await ground.admin("POST", f"/{SHOP}/clients", {**await ground.client("web"), "clientId": "gone", "id": None})
    visit = await ground.sign_in("web", "gone")
    await ground.admin("DELETE", f"/{SHOP}/clients/{(await ground.client('gone'))['id']}")
    await visit.browser.sign_out(visit.claims["web"]["raw"], GOODBYE)
    return [Ending(visit=visit, clients=("web",))]


async def a_user_is_disabled(ground: Ground) -> Sequence[Ending]:
    """With the realm's listener on, its clients are notified. The session continues, and ends separately."""
    visit = await ground.sign_in("web", "pair")
    await ground.admin("PUT", f"/{SHOP}/users/{visit.sub}", {"enabled": False})
    await ground.admin("DELETE", f"/{SHOP}/sessions/{visit.sid}")
    return [Ending(visit=visit, clients=("web", "pair"), reason=reason) for reason in ("terminated", None)]


async def a_client_of_saml_is_there_too(ground: Ground) -> Sequence[Ending]:
    """It has no logout tokens, and is not named."""
    visit = await ground.sign_in("web", "app")
    assert "SAMLResponse" in await visit.browser.open(f"/protocol/saml/clients/{SAML}")
    await visit.browser.sign_out(visit.claims["web"]["raw"], GOODBYE)
    return [Ending(visit=visit, clients=("web", "app"))]


async def somebody_signs_in_again(ground: Ground) -> Sequence[Ending]:
    """In the browser whose session was ended, which Keycloak may give its old id: two endings, neither a repetition."""
    visit = await ground.sign_in("web")
    await ground.admin("DELETE", f"/{SHOP}/sessions/{visit.sid}")
    again = await ground.sign_in("web", visit=Visit(browser=visit.browser, user=visit.user))
    await again.browser.sign_out(again.claims["web"]["raw"], GOODBYE)
    return [Ending(visit=each, clients=("web",)) for each in (visit, again)]


async def sessions_expire(ground: Ground) -> Sequence[Ending]:
    """Nobody has used one for a year. In the other, a browser came back too late.

    26.4 then ends it at once where it still has it in memory, as a sign-out; else it is left to the cleaner.
    """
    visit = await ground.sign_in("web", "pair")
    late = await ground.sign_in("web", "app", realm_name=BRIEF)
    await ground.make_old(visit.sid)
    await asyncio.sleep(IDLE + 1)  # Keycloak's own clock, which no test can set
    assert "login_required" in await late.browser.ask("web", CALLBACK)
    await ground.make_old(late.sid)
    await ground.tap.until(lambda _: {visit.sid, late.sid} <= {each.sid for each in ground.tap.seen}, CLEANED)
    at_once = ground.version.startswith("26.4.") and ground.tap.of(late.sid)[0].lane == "events"
    expired = {"reason": "session_expiration", "lane": "bulk"}
    return [
        Ending(visit=visit, clients=("web", "pair"), **expired),
        Ending(visit=late, clients=("web", "app"), realm_name=BRIEF, **({} if at_once else expired)),
    ]


async def the_realm_is_deleted(ground: Ground) -> Sequence[Ending]:
    """The last of all."""
    visit = await ground.sign_in("web", "pair", realm_name=DOOMED)
    await ground.admin("DELETE", f"/{DOOMED}")
    return [Ending(visit=visit, clients=("web", "pair"), reason="terminated", lane="bulk", realm_name=DOOMED)]


WAYS: Mapping[str, Way] = {
    way.__name__: way
    for way in (
        the_user_signs_out,
        the_user_signs_out_by_a_hint_alone,
        another_client_signs_the_user_out,
        a_client_signs_the_user_out,
        an_administrator_signs_a_user_out,
        an_administrator_ends_a_session,
        the_user_ends_another_session,
        all_sessions_of_the_realm_end,
        a_user_is_deleted,
        the_only_client_revokes_its_token,
        one_of_two_clients_revokes_its_token,
        a_consent_is_withdrawn,
        a_first_sign_in_is_offline,
        a_session_ends_beside_an_offline_one,
        a_client_is_deleted,
        a_user_is_disabled,
        a_client_of_saml_is_there_too,
        somebody_signs_in_again,
        the_realm_is_deleted,
    )
}
