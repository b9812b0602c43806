"""From the event to a receiver that verifies it: what arrives, what is refused, and what an outage does.

The receivers are stand-ins that answer as real ones did (tests/features/channels/receivers).
"""

import json
from pathlib import Path
from typing import Any

from tests.features.channels.receiver_harness import (
    AUDIENCE,
    EMAIL,
    KEYCLOAK_SECRET,
    TOKEN_SECRET,
    WORKSHOP_KEY,
    channel_site,
    check_messages,
    dead_letter,
    event,
    publish,
    receivers_of,
    results,
    rsa_keys,
    until_delivered,
    worker_with,
)
from tests.features.channels.receivers.verification import verify_signature
from tests.system.clients import Clients, verify_all
from tests.system.site import ISSUER, Site, client

KINDS = (
    "redfox", "okta_workshop", "okta_org", "bank", "janssen", "auth0", "strict", "quarkus", "caep_dev", "duo",
    "keycloak", "google_workspace", "command",
)  # fmt: skip
ENDS_ALL = ("redfox", "okta_workshop", "okta_org", "bank", "janssen", "auth0", "google_workspace", "command")
ONE_OF_EACH = ("redfox", "strict", "command")


async def test_each_receiver_accepts_its_message(tmp_path: Path) -> None:
    """The whole user, then one session: then only receivers that can end one are notified, the rest is skipped."""
    site = channel_site(tmp_path)
    async with receivers_of(site) as receivers:
        for kind in KINDS:
            await receivers.start(kind, kind)
        rows = [receivers.client(kind, kind) for kind in KINDS]
        async with worker_with(site, rows) as running:
            found = await results(running, event(KINDS))
            assert {name: each["fate"] for name, each in found.items()} == dict.fromkeys(KINDS, "delivered")
            assert {kind: len(receivers.by_name[kind].ended) for kind in KINDS} == dict.fromkeys(KINDS, 1)
            found = await results(running, event(KINDS, sid="s1"))
            fates = {name: (each["fate"], each.get("reason")) for name, each in found.items()}
            assert {name for name, fate in fates.items() if fate == ("skipped", "session_only")} == {*ENDS_ALL}
            assert {kind: len(receivers.by_name[kind].ended) for kind in KINDS} == {
                kind: 1 if kind in ENDS_ALL else 2 for kind in KINDS
            }
            strict = receivers.by_name["strict"].ended[-1]
            assert (strict["format"], strict["session"]) == ("complex", {"format": "opaque", "id": "s1"})
            assert await running.stop() == 0
        for receiver in receivers.by_name.values():
            check_messages(site, receiver)
        assert receivers.tokens.requests == 2, "one access token for each client"
        tokens = [*receivers.tokens.issued]
    for secret in (*tokens, EMAIL, TOKEN_SECRET, WORKSHOP_KEY, KEYCLOAK_SECRET, *site.secrets()):
        assert secret not in running.log


async def test_wrong_settings_become_dead_letters(tmp_path: Path) -> None:
    """At once where the receiver's answer is final, after three more tries where new keys might explain it."""
    else_ = {"audience": "https://else.example.com"}
    wrong: dict[str, tuple[str, dict[str, Any], str, int]] = {
        "strict": ("strict", else_, "refused", 1),
        "quarkus": ("quarkus", else_, "rejected_token", 4),
        "caep": ("caep_dev", else_, "rejected_token", 4),
        "caep-format": ("caep_dev", {"preset": None, "subject": "iss_sub"}, "rejected_token", 4),
        "bank-member": ("bank", {"member": "subject"}, "refused", 1),
        "bank-format": ("bank", {"subject": {"format": "uid", "id": "{sub}"}}, "refused", 1),
        "tenant": ("command", {"tenant": "other"}, "rejected_token", 4),
    }
    site = channel_site(tmp_path)
    async with receivers_of(site) as receivers:
        for name, (kind, *_) in wrong.items():
            await receivers.start(kind, name)
        rows = [receivers.client(kind, name, **changes) for name, (kind, changes, *_) in wrong.items()]
        async with worker_with(site, rows) as running:
            await publish(running, event([*wrong]))
            for name, (_, _, reason, requests) in wrong.items():
                assert (await dead_letter(running, name))["reason"] == reason, name
                assert (len(receivers.by_name[name].requests), receivers.by_name[name].ended) == (requests, []), name
        for receiver in receivers.by_name.values():
            check_messages(site, receiver)


async def test_status_500_is_retried_whatever_its_cause(tmp_path: Path) -> None:
    """No dead letter comes soon; once the setting is right, the delivery succeeds."""
    wrong = {"duo": {"audience": "https://else.example.com"}, "janssen": {"subject": "iss_sub"}}
    site = channel_site(tmp_path)
    async with receivers_of(site) as receivers:
        for kind in wrong:
            await receivers.start(kind, kind)
        async with worker_with(site, [receivers.client(kind, kind, **each) for kind, each in wrong.items()]) as running:
            await publish(running, event([*wrong]))
            for receiver in receivers.by_name.values():
                await receiver.until(lambda receiver=receiver: receiver.statuses[:2] == [500, 500])  # type: ignore[misc]
            site.write_clients([receivers.client(kind, kind) for kind in wrong])
            await until_delivered(running, 2)
            assert [len(receiver.ended) for receiver in receivers.by_name.values()] == [1, 1]
            assert not running.logged("dead_letter")


async def test_unpublished_key_is_rejected(tmp_path: Path) -> None:
    """The receivers read a key set without our key: three more tries, then a dead letter."""
    site = channel_site(tmp_path)
    (tmp_path / "other").mkdir()
    async with receivers_of(site) as receivers, receivers_of(channel_site(tmp_path / "other")) as others:
        for kind in ONE_OF_EACH:
            receivers.by_name[kind] = await others.start(kind, kind)
        async with worker_with(site, [receivers.client(kind, kind) for kind in ONE_OF_EACH]) as running:
            await publish(running, event(ONE_OF_EACH))
            for kind in ONE_OF_EACH:
                assert (await dead_letter(running, kind))["reason"] == "rejected_token"
                assert (len(receivers.by_name[kind].requests), receivers.by_name[kind].ended) == (4, [])


async def test_unreadable_keys_cost_no_delivery(tmp_path: Path) -> None:
    """The receivers cannot read the issuer's keys for their first two requests, and accept a later one."""
    kinds = (*ONE_OF_EACH, "caep_dev")
    site = channel_site(tmp_path)
    async with receivers_of(site) as receivers:
        for kind in kinds:
            await receivers.start(kind, kind)
        receivers.issuer.unavailable = True
        async with worker_with(site, [receivers.client(kind, kind) for kind in kinds]) as running:
            await publish(running, event(kinds))
            for receiver in receivers.by_name.values():
                await receiver.until(lambda receiver=receiver: len(receiver.requests) >= 2)  # type: ignore[misc]
            receivers.issuer.unavailable = False
            await until_delivered(running, len(kinds))
            assert not running.logged("dead_letter")
        for receiver in receivers.by_name.values():
            assert len(receiver.ended) == 1
            check_messages(site, receiver)


async def test_outage_delays_only_its_own_address(tmp_path: Path) -> None:
    """The follower of each client is notified at once. Each attempt has a new `jti`, and the same `txn` and event."""
    site = channel_site(tmp_path)
    async with receivers_of(site) as receivers:
        rows = []
        for kind in ONE_OF_EACH:
            (await receivers.start(kind, kind)).outage = 503
            await receivers.start(kind, f"{kind}-2", client_id=kind)
            rows += [receivers.client(kind, kind), receivers.client(kind, f"{kind}-2", follows=kind)]
        async with worker_with(site, rows) as running:
            await publish(running, event(ONE_OF_EACH))
            for kind in ONE_OF_EACH:
                up, down = receivers.by_name[f"{kind}-2"], receivers.by_name[kind]
                await up.until(lambda up=up: len(up.ended) == 1)  # type: ignore[misc]
                await down.until(lambda down=down: len(down.requests) >= 2)  # type: ignore[misc]
                down.outage = None
            await until_delivered(running, 2 * len(ONE_OF_EACH))
        for receiver in receivers.by_name.values():
            assert len(receiver.ended) == 1
            assert len(check_messages(site, receiver)) == len(receiver.requests)
        strict = receivers.by_name["strict"].requests
        sent = [verify_signature(each.body.decode(), rsa_keys(site), ["RS256"])[1] for each in strict]
        assert len(sent) >= 3
        assert len({(each["txn"], json.dumps(each["events"])) for each in sent}) == 1


async def test_failed_application_is_retried_with_a_new_token(tmp_path: Path) -> None:
    """A receiver that has noted the `jti` of a failed request would drop the same token."""
    site = channel_site(tmp_path)
    async with receivers_of(site) as receivers:
        for kind in ("quarkus", "redfox"):
            (await receivers.start(kind, kind)).failing = [500, 500]
        rows = [receivers.client(kind, kind) for kind in ("quarkus", "redfox")]
        async with worker_with(site, rows) as running:
            await publish(running, event(["quarkus", "redfox"]))
            await until_delivered(running, 2)
        assert {name: len(each.ended) for name, each in receivers.by_name.items()} == {"quarkus": 1, "redfox": 1}


async def test_access_token_is_renewed_once_within_an_attempt(tmp_path: Path) -> None:
    """After a 401 a new token is fetched. A missing scope is refused by Janssen with 401 however new the token is."""
    site = channel_site(tmp_path)
    async with receivers_of(site) as receivers:
        good, poor = await receivers.start("okta_org", "good"), await receivers.start("janssen", "poor")
        proof = receivers.client("okta_org", "good")["notifier"]["channel"]["global_token_revocation"]["proof"]
        rows = [receivers.client("okta_org", "good"), receivers.client("janssen", "poor", proof=proof | {"scope": "x"})]
        async with worker_with(site, rows) as running:
            assert (await results(running, event(["good"])))["good"]["fate"] == "delivered"
            receivers.tokens.revoke_all()
            assert (await results(running, event(["good"])))["good"]["fate"] == "delivered"
            assert good.statuses == [204, 401, 204]
            await publish(running, event(["poor"]))
            assert (await dead_letter(running, "poor"))["reason"] == "rejected_token"
            assert {*poor.statuses} == {401}
        tokens = [*receivers.tokens.issued]
        assert not any(token in running.log for token in (*tokens, TOKEN_SECRET))


async def test_unavailable_token_endpoint_defers_its_client_only(tmp_path: Path) -> None:
    """Nothing is sent meanwhile. The delivery follows once the endpoint answers."""
    site = channel_site(tmp_path)
    async with receivers_of(site) as receivers:
        janssen, other = await receivers.start("janssen", "janssen"), await receivers.start("redfox", "other")
        await receivers.tokens.close()
        rows = [receivers.client("janssen", "janssen"), receivers.client("redfox", "other")]
        async with worker_with(site, rows) as running:
            await publish(running, event(["janssen", "other"]))
            await other.until(lambda: len(other.ended) == 1)
            deferral = await running.until_logged("deferral", lambda line: "access" in json.dumps(line))
            assert "janssen" in json.dumps(deferral)
            assert janssen.requests == []
            assert not running.logged("dead_letter")


async def test_notifier_accepts_the_security_events_of_another(tmp_path: Path) -> None:
    """By its source with the preset keycloak_ssf: user and session arrive at the second one's client."""
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    first, second = channel_site(tmp_path / "first"), Site(tmp_path / "second", f"sqlite:{tmp_path / 'second/q.db'}")
    async with Clients() as clients, receivers_of(first) as receivers:
        proof = {"issuer": ISSUER, "jwks_uri": f"{receivers.issuer.base}/jwks", "audience": AUDIENCE}
        second.config["sources"] = {"kc": {"preset": "keycloak_ssf", "http": {"set": proof}}}
        second.write()
        async with worker_with(second, [client("wiki", clients.url("wiki"))]) as receiving:
            uri = f"{await receiving.at('api')}/v1/events/kc"
            row = {"client_id": "other", "issuer": ISSUER, "id_token_signed_response_alg": "RS256"}
            channel = {"security_event": {"uri": uri, "audience": AUDIENCE}}
            async with worker_with(first, [row | {"notifier": {"channel": channel}}]) as sending:
                assert (await results(sending, event(["other"], sid="s1")))["other"]["fate"] == "delivered"
                await clients.until_notified("wiki", ["s1"])
                assert (await results(sending, event(["other"])))["other"]["fate"] == "delivered"
                await clients.until_notified("wiki", ["alice"])
                wrong = {"security_event": {"uri": uri, "audience": "https://else.example.com"}}
                first.write_clients([row | {"notifier": {"channel": wrong}}])
                await sending.until_logged("reloaded")
                found = await results(sending, event(["other"]))
                assert (found["other"]["fate"], found["other"]["reason"]) == ("dead", "refused")
        verify_all(clients.hits, second.jwks)
        assert [(hit.claims["sub"], hit.claims.get("sid")) for hit in clients.hits] == [
            ("alice", "s1"),
            ("alice", None),
        ]
