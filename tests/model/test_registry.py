"""Test the registry's snapshot: resolution of a client, and checks of a whole registry."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_network
from types import MappingProxyType

import pytest

from notifier.configuration.clients.registry_checks import find_excessive_loss, find_unsignable, record_losses
from notifier.messages.event_clients import resolve_aliases
from notifier.messages.message_planner import make_deliveries
from notifier.model.client import Algorithm, Client, EgressPolicy, Route, TlsFiles, TokenProfile
from notifier.model.delivery import ClientOverrides, Delivery
from notifier.model.registry import InlineRule, Issuer, Registry
from notifier.model.session_ended import ClientEntry, SessionEnded

ONE = "https://id.example.com"
TWO = "https://login.example.org"
URI = "https://shop.example.com/hook"
ROUTE = Route(
    egress=EgressPolicy(allow=(ip_network("10.0.0.0/8"),)),
    tls=TlsFiles(),
    proxy="http://proxy:3128",
    headers=(("X-Auth", "secret"),),
)
SHOP = Client(iss=ONE, client_id="shop", backchannel_logout_uri=URI, route=ROUTE, timeout=3.0)
TEMPLATE = Client(iss="", client_id="", backchannel_logout_uri=None, registered=False, timeout=9.0)
NO_ALIASES: Mapping[str, Mapping[str, str]] = MappingProxyType({})


def registry_of(
    clients: Iterable[Client], *, inline: InlineRule = "allow", aliases: Mapping[str, Mapping[str, str]] = NO_ALIASES
) -> Registry:
    """Return a registry of these clients."""
    by_issuer: dict[str, dict[str, Client]] = {}
    for client in clients:
        by_issuer.setdefault(client.iss, {})[client.client_id] = client
    return Registry(clients=by_issuer, unregistered=TEMPLATE, inline=inline, aliases=aliases)


def numbered(count: int, iss: str = ONE) -> list[Client]:
    """Return so many clients."""
    return [replace(SHOP, iss=iss, client_id=f"c{number}") for number in range(count)]


class TestResolve:
    def test_registered(self) -> None:
        """A registered client is served as registered, at its own issuer only."""
        registry = registry_of([SHOP])
        assert registry.resolve(ONE, "shop", None) is SHOP
        assert registry.resolve(TWO, "shop", None) is None
        assert registry.resolve(ONE, "other", None) is None

    def test_inline_wins(self) -> None:
        """Members of the event override, one by one."""
        inline = ClientOverrides(
            backchannel_logout_uri=f"{URI}?tenant=2",
            backchannel_logout_session_required=True,
            id_token_signed_response_alg=Algorithm.ES256,
        )
        client = registry_of([SHOP]).resolve(ONE, "shop", inline)
        assert client is not None
        assert client.backchannel_logout_uri == f"{URI}?tenant=2"
        assert client.backchannel_logout_session_required
        assert client.token.alg is Algorithm.ES256
        assert (client.timeout, client.route) == (3.0, ROUTE)
        assert registry_of([SHOP]).resolve(ONE, "shop", ClientOverrides()) == SHOP

    def test_inline_is_denied(self) -> None:
        """With `registry.inline: deny`, the event cannot set an address."""
        registry = registry_of([SHOP], inline="deny")
        inline = ClientOverrides(backchannel_logout_uri="https://evil.example.com/")
        assert registry.resolve(ONE, "shop", inline) is SHOP
        assert registry.resolve(ONE, "other", inline) is None

    def test_another_origin_gets_no_credentials(self) -> None:
        """An inline URI of another scheme, host or port gets none of the client's headers, TLS, proxy or egress."""
        registry = registry_of([SHOP])
        for uri in (
            "https://shop.example.com:8443/hook",
            "https://evil.example.com/hook",
            "http://shop.example.com/hook",
        ):
            client = registry.resolve(ONE, "shop", ClientOverrides(backchannel_logout_uri=uri))
            assert client is not None
            assert client.route == TEMPLATE.route
        for uri in ("https://SHOP.example.com/other", "https://shop.example.com:443/hook"):
            client = registry.resolve(ONE, "shop", ClientOverrides(backchannel_logout_uri=uri))
            assert client is not None
            assert client.route == ROUTE

    def test_unregistered(self) -> None:
        """A client that only the event names is served by the defaults, if the event has its address."""
        registry = registry_of([])
        client = registry.resolve(ONE, "new", ClientOverrides(backchannel_logout_uri=URI))
        assert client == replace(TEMPLATE, iss=ONE, client_id="new", backchannel_logout_uri=URI)
        assert registry.resolve(ONE, "new", ClientOverrides(backchannel_logout_session_required=True)) is None


class TestUnsignable:
    def test_client_without_a_key_for_its_algorithm_is_reported(self) -> None:
        """A client with an algorithm without a key is reported with its issuer, the available ones, and the remedy."""
        es256 = replace(SHOP, token=TokenProfile(alg=Algorithm.ES256))
        eddsa = replace(SHOP, iss=TWO, token=TokenProfile(alg=Algorithm.EDDSA))
        silent = replace(eddsa, client_id="silent", backchannel_logout_uri=None)
        able = replace(SHOP, client_id="able")
        possible = {ONE: frozenset({Algorithm.RS256, Algorithm.PS256}), TWO: frozenset[Algorithm]()}
        found = find_unsignable(registry_of([es256, eddsa, silent, able]), lambda iss: possible[iss])
        assert [mistake.path for mistake in found] == [f"client 'shop' of {ONE}", f"client 'shop' of {TWO}"]
        assert found[0].text == (
            "needs a token signed with ES256, but keys of its issuer can do only RS256, PS256: add a P-256 key to"
            f' issuers["{ONE}"].keys, or register the client with id_token_signed_response_alg set to one of these'
        )
        assert found[1].text == (
            "needs a token signed with EdDSA, but its issuer has no usable key: add an Ed25519 key to"
            f' issuers["{TWO}"].keys'
        )


def loss(before: Registry, after: Registry) -> str:
    """Return the reported loss of this reload."""
    text = find_excessive_loss(before, after)
    assert text is not None
    return text


class TestTooMuchLost:
    def test_truncated_file_is_a_loss(self) -> None:
        """For more than one client and more than a fifth, the count and the names are reported."""
        text = find_excessive_loss(registry_of(numbered(30)), registry_of(numbered(23)))
        assert text == (
            "7 of 30 clients with an address could not be notified any more (7 gone, 0 without backchannel_logout_uri):"
            " 'c23', 'c24', 'c25', 'c26', 'c27', 'c28', 'c29'"
        )

    @pytest.mark.parametrize(("before", "after"), [(2, 0), (3, 1), (7, 4), (9, 7)])
    def test_truncated_small_file_is_a_loss(self, before: int, after: int) -> None:
        """A registry of a few clients is guarded as one of thousands."""
        assert f"{before - after} of {before} clients" in loss(
            registry_of(numbered(before)), registry_of(numbered(after))
        )

    def test_lost_uris(self) -> None:
        """A client that remains without its `backchannel_logout_uri` counts as removed."""
        silent = [replace(client, backchannel_logout_uri=None) for client in numbered(1000)]
        text = loss(registry_of(numbered(1000)), registry_of(silent))
        assert "1000 of 1000 clients" in text
        assert "0 gone, 1000 without backchannel_logout_uri): 'c0', 'c1', 'c2'" in text
        text = loss(registry_of(numbered(30)), registry_of([*silent[:4], *numbered(27)[4:]]))
        assert "7 of 30 clients" in text
        assert "(3 gone, 4 without backchannel_logout_uri)" in text

    def test_clients_without_a_uri_do_not_hide_a_loss(self) -> None:
        """The share is that of the clients with a URI: 10,000 without one beside them change nothing."""
        silent = [replace(SHOP, client_id=f"s{number}", backchannel_logout_uri=None) for number in range(10_000)]
        assert "30 of 30 clients" in loss(registry_of([*silent, *numbered(30)]), registry_of(silent))

    def test_clients_with_addresses_in_events(self) -> None:
        """Registered without a URI, which their events contain: their settings are removed with their entries."""
        silent = [replace(client, backchannel_logout_uri=None) for client in numbered(30)]
        text = loss(registry_of(silent), registry_of(silent[:20]))
        assert text.startswith("10 of 30 registered clients would be gone")
        assert find_excessive_loss(registry_of(silent), registry_of(silent[:24])) is None
        assert find_excessive_loss(registry_of(silent[:5]), registry_of([])) is not None

    @pytest.mark.parametrize("count", [1, 5])
    def test_no_client_remains(self, count: int) -> None:
        """For any number: a reload that leaves no client is withheld."""
        before = numbered(count)
        silent = [replace(client, backchannel_logout_uri=None) for client in before]
        for after in ([], silent):
            assert f"{count} of {count} clients" in loss(registry_of(before), registry_of(after))

    def test_accepted_changes(self) -> None:
        """A fifth, or one client, may be removed if others remain; additions are accepted; a paused client is kept."""
        assert find_excessive_loss(registry_of(numbered(30)), registry_of(numbered(24))) is None
        assert find_excessive_loss(registry_of(numbered(2)), registry_of(numbered(1))) is None
        assert find_excessive_loss(registry_of([]), registry_of(numbered(30))) is None
        paused = [replace(client, paused=True) for client in numbered(30)]
        assert find_excessive_loss(registry_of(numbered(30)), registry_of(paused)) is None

    def test_followers_of_a_removed_client_do_not_count(self) -> None:
        """A client is removed with its further addresses; neither they nor their number hide that others are."""
        leaders = numbered(20)
        followers = [
            replace(leader, client_id=f"{leader.client_id}-{nth}", follows=leader.client_id)
            for leader in leaders
            for nth in range(4)
        ]
        before = registry_of([*leaders, *followers])
        assert find_excessive_loss(before, registry_of([*leaders[1:], *followers[4:]])) is None
        assert "5 of 20 clients" in loss(before, registry_of([*leaders[5:], *followers[20:]]))
        assert "19 of 20 clients" in loss(before, registry_of([*leaders[19:], *followers[76:]]))
        assert "40 of 100 clients" in loss(before, registry_of([*leaders, *followers[40:]]))

    def test_another_client_is_no_replacement(self) -> None:
        """Clients are compared by issuer and id: the same ids at another issuer are others."""
        assert find_excessive_loss(registry_of(numbered(30)), registry_of(numbered(30, TWO))) is not None


class TestLosses:
    @pytest.mark.parametrize(
        "after",
        [
            registry_of([replace(SHOP, backchannel_logout_uri=None), *numbered(2)]),
            registry_of(numbered(2)),
            Registry(),
        ],
    )
    def test_of_an_address_an_entry_and_an_issuer(self, after: Registry) -> None:
        """Each is recorded once, with its time, through later reloads, until it is restored or the grace is over."""
        before = registry_of([SHOP, *numbered(2)])
        noted, lost = record_losses(before, after, 100.0)
        assert noted.lost_at[ONE]["shop"] == 100.0
        assert SHOP in lost
        later, more = record_losses(noted, after, 399.0)
        assert (later.lost_at, more) == (noted.lost_at, [])
        assert later.has_just_lost(ONE, "shop", 399.9)
        assert not later.has_just_lost(ONE, "shop", 400.0)
        assert record_losses(later, after, 400.0)[0].lost_at == {}
        assert record_losses(later, before, 399.0)[0].lost_at == {}

    def test_of_a_client_with_aliases(self) -> None:
        """An event with an alias is planned as before: a null address skips no client, and the delivery's id stays."""
        names = {"uuid": "shop", "of-another": "c0"}
        before = registry_of([SHOP, *numbered(2)], aliases={ONE: names})
        noted, _ = record_losses(before, registry_of(numbered(2)), 100.0)
        assert noted.aliases == {ONE: {"uuid": "shop"}}
        event = SessionEnded(id="e", id_given=True, iss=ONE, sub="ann", sid=None, clients=(
            ClientEntry(client_id="uuid", no_address=True), "uuid",
        ))  # fmt: skip
        planned = [[*make_deliveries(resolve_aliases(event, by), by, 399.9)] for by in (before, noted)]
        assert planned[0] == planned[1]
        assert all(isinstance(delivery, Delivery) for delivery in planned[0])
        taken = registry_of(numbered(2), aliases={ONE: {"uuid": "c1"}})
        assert record_losses(noted, taken, 200.0)[0].aliases == {ONE: {"uuid": "c1"}}
        assert record_losses(noted, registry_of(numbered(2)), 400.0)[0].aliases == {}

    def test_that_are_none(self) -> None:
        """A client that never had an address, has another, or waits for a pause to end."""
        silent = replace(SHOP, client_id="silent", backchannel_logout_uri=None)
        before = registry_of([SHOP, silent])
        for client in (replace(SHOP, backchannel_logout_uri=f"{URI}/new"), replace(SHOP, paused=True)):
            assert record_losses(before, registry_of([client]), 100.0)[0].lost_at == {}

    @pytest.mark.parametrize(
        ("before", "after", "narrower"),
        [
            ("allow", "deny", True),
            ("allow", "publishers", True),
            ("publishers", "deny", True),
            ("deny", "allow", False),
            ("allow", "allow", False),
        ],
    )
    def test_of_addresses_that_events_bring(self, before: InlineRule, after: InlineRule, *, narrower: bool) -> None:
        """Their owner is unknown, so the start of the restriction is recorded."""
        noted, _ = record_losses(registry_of([], inline=before), registry_of([], inline=after), 100.0)
        assert noted.has_just_narrowed(399.9) is narrower
        assert record_losses(noted, noted, 399.0)[0].has_just_narrowed(399.9) is narrower
        assert not noted.has_just_narrowed(400.0)

    def test_of_the_publishers_from_whom_addresses_count(self) -> None:
        """Without publishers the issuer's name proves nothing."""
        named = Registry(issuers={ONE: Issuer(iss=ONE, publishers=frozenset({"idp"}))})
        noted, _ = record_losses(named, Registry(issuers={ONE: Issuer(iss=ONE)}), 100.0)
        assert noted.has_just_narrowed(399.9)
