"""A deferral whose cause an operator must remove is reported once, with a hint, until it is over."""

from dataclasses import replace
from typing import Any

import pytest

from notifier.delivery.admission import NO_SUCH_CLIENT
from notifier.delivery.facts import DeadLettered, Deferred, Fact, notice_of
from notifier.model.client import Client
from notifier.model.notice import Notice
from notifier.model.outcome import Cause, DeadReason
from notifier.model.registry import Issuer, Registry
from notifier.model.trouble import TroubleKind
from notifier.operators.status.deferral_watch import KEEP_SECONDS, MAX_NAMES_PER_ISSUER, MAX_SEARCHES, DeferralWatch
from tests.delivery.worker_harness import ISS
from tests.operators.status.test_service_status import delivery_of
from tests.support.outcome_facts import delivered


class Harness:
    """A watch, and what it passed on."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.facts: list[Fact] = []
        self.registry = Registry(issuers={ISS: Issuer(iss=ISS)}, clients={ISS: {"shop": client("shop")}})
        self.over: list[tuple[str, str, str]] = []
        self.watch = DeferralWatch(
            self.facts.append,
            lambda: self.registry,
            lambda: self.now,
            lambda *ended: self.over.append(ended),
        )

    def deferred(
        self,
        cause: Cause,
        client_id: str = "",
        iss: str = ISS,
        text: str = "",
        wait: float = 2,
        earlier: int = 0,
        **more: Any,
    ) -> Deferred:
        """Defer a delivery and return the fact that the observers receive."""
        one = delivery_of(client_id, iss=iss, deferrals=earlier + 1) if client_id else None
        due = self.now + wait
        self.watch.observe(
            Deferred(iss=iss, client_id=client_id, event_id="e", cause=cause, due=due, text=text, delivery=one, **more)
        )
        fact = self.facts[-1]
        assert isinstance(fact, Deferred)
        return fact

    def delivered(self, client_id: str) -> None:
        """Report a delivery."""
        self.watch.observe(delivered(delivery_of(client_id)))

    def dead_lettered(self, client_id: str) -> None:
        """Report a dead letter."""
        self.watch.observe(
            DeadLettered(iss=ISS, client_id=client_id, event_id="e", reason=DeadReason.UNKNOWN_CLIENT, text="")
        )

    def troubles(self) -> list[tuple[str, str, str, int]]:
        """Return the problems."""
        return [(each.kind, each.iss, each.client_id, each.count) for each in self.watch.troubles()]


def test_dead_lettered_delivery_is_not_pending() -> None:
    """Of two deliveries for an unknown client."""
    harness = Harness()
    for _ in range(2):
        harness.deferred(Cause.UNKNOWN, "nobody", text=NO_SUCH_CLIENT)
    assert harness.troubles() == [(TroubleKind.UNKNOWN_CLIENT, ISS, "nobody", 2)]
    harness.dead_lettered("nobody")
    assert harness.troubles() == [(TroubleKind.UNKNOWN_CLIENT, ISS, "nobody", 1)]
    harness.dead_lettered("nobody")
    assert harness.troubles() == []


def client(client_id: str) -> Client:
    """A registered client."""
    return Client(iss=ISS, client_id=client_id, backchannel_logout_uri="https://shop.example/out")


def notice(fact: Fact) -> Notice:
    """Return the notice for the publisher."""
    made = notice_of(fact)
    assert made is not None
    return made


def test_unknown_issuer_is_reported_once_with_the_nearest_name() -> None:
    """For any number of events. A redelivered event is not counted again."""
    harness = Harness()
    text = "not one of `issuers` (yet)"
    first = harness.deferred(Cause.UNKNOWN, iss=f"{ISS}/", text=text)
    assert (first.first, first.hint) == (True, f"did you mean {ISS}, without the slash at the end?")
    assert notice(first).text == f"{text}; {first.hint}"
    assert not harness.deferred(Cause.UNKNOWN, iss=f"{ISS}/", text=text).first
    assert not harness.deferred(Cause.UNKNOWN, iss=f"{ISS}/", text=text, again=True).first
    assert harness.troubles() == [("unknown_issuer", f"{ISS}/", "", 2)]
    harness.registry = Registry(issuers={f"{ISS}/": Issuer(iss=f"{ISS}/")})
    assert harness.troubles() == []


def test_unknown_client_is_reported_while_it_has_deferrals() -> None:
    """Until KEEP_SECONDS after the last was due. A later deferral is reported again."""
    harness = Harness()
    first = harness.deferred(Cause.UNKNOWN, "shopp", text=NO_SUCH_CLIENT)
    assert (first.first, first.hint) == (True, "did you mean shop?")
    assert not harness.deferred(Cause.UNKNOWN, "shopp", text=NO_SUCH_CLIENT).first
    assert harness.troubles() == [("unknown_client", ISS, "shopp", 2)]
    harness.now += KEEP_SECONDS + 3
    assert harness.troubles() == []
    assert harness.deferred(Cause.UNKNOWN, "shopp", text=NO_SUCH_CLIENT).first


def test_unknown_client_with_a_rejected_row_is_reported_with_the_reason() -> None:
    """With the reason in place of a suggestion, to operators only, since it names our settings."""
    harness = Harness()
    why = "is beyond db (registry source db)"
    plain = harness.registry
    harness.registry = replace(plain, refused={ISS: {"shopp": why}})
    first = harness.deferred(Cause.UNKNOWN, "shopp", text=NO_SUCH_CLIENT)
    assert (first.hint, notice(first).text) == (f"its row is left out: {why}", NO_SUCH_CLIENT)
    [trouble] = harness.watch.troubles()
    assert trouble.text == f"{NO_SUCH_CLIENT}; its row is left out: {why}"
    harness.registry = replace(plain, faults={ISS: {"shopp": "has no address (registry source kc)"}})
    [trouble] = harness.watch.troubles()
    assert "has no address (registry source kc)" in trouble.text
    harness.registry = plain
    [trouble] = harness.watch.troubles()
    assert "left out" not in trouble.text


def test_signing_failure_is_reported_once_per_issuer() -> None:
    """Until each deferred client was attempted. Other clients of the issuer do not end it."""
    harness = Harness()
    text = "issuer has no key for ES256"
    first = harness.deferred(Cause.SIGNING, "shop", text=text)
    assert (first.first, notice(first).text) == (True, text)
    assert not harness.deferred(Cause.SIGNING, "mail", text=text).first
    for name, left in (("rsa", 1), ("shop", 1), ("mail", 0)):
        harness.delivered(name)
        assert len(harness.troubles()) == left
    assert harness.deferred(Cause.SIGNING, "shop", text=text).first
    harness.watch.on_key_signs(ISS)
    assert harness.troubles() == []


def test_lack_of_open_files_is_reported_once_per_issuer() -> None:
    """Until each deferred client was attempted, and not to publishers. A key that signs does not end it."""
    harness = Harness()
    first = harness.deferred(Cause.OPEN_FILES, "shop", text="no further file", wait=256)
    assert (first.first, notice(first).text) == (True, "")
    assert not harness.deferred(Cause.OPEN_FILES, "mail", text="no further file").first
    harness.watch.on_key_signs(ISS, harness.now)
    assert harness.troubles() == [("open_files", ISS, "", 2)]
    harness.delivered("mail")
    assert len(harness.troubles()) == 1
    harness.delivered("shop")
    assert (harness.troubles(), harness.over) == ([], [(Cause.OPEN_FILES, ISS, name) for name in ("mail", "shop")])


def test_deferrals_that_the_client_causes_are_not_reported() -> None:
    """A notice for publishers does not name our files and proxies."""
    harness = Harness()
    assert not harness.deferred(Cause.SLOT, "shop").first
    assert harness.troubles() == []
    fact = harness.deferred(Cause.TLS_FILES, "shop", text="/etc/notifier/ca.pem: no such file")
    assert (fact.first, notice(fact).text) == (True, "")


@pytest.mark.parametrize("cause", [Cause.ENCRYPTION, Cause.ORIGIN])
def test_missing_encryption_key_or_origin_is_reported_until_an_attempt(cause: Cause) -> None:
    """For that client only, and not to its publisher."""
    harness = Harness()
    text = "its tokens must be encrypted, and its jwks_uri https://shop.example/jwks cannot be read: answered 503"
    first = harness.deferred(cause, "shop", text=text)
    assert (first.first, notice(first).text) == (True, "")
    assert not harness.deferred(cause, "shop", text=text).first
    assert harness.troubles() == [(cause, ISS, "shop", 2)]
    harness.delivered("shop")
    assert harness.troubles() == []


CAUSES = [Cause.ENCRYPTION, Cause.TLS_FILES, Cause.PROXY, Cause.ORIGIN]


@pytest.mark.parametrize("cause", CAUSES)
def test_attempt_releases_the_deferrals_of_the_same_cause(cause: Cause) -> None:
    """Once, not for other clients, and not for deferrals of a few seconds."""
    harness = Harness()
    harness.deferred(cause, "shop", text="away", wait=4)
    harness.delivered("shop")
    assert harness.over == []
    harness.deferred(cause, "shop", text="away", wait=256)
    harness.delivered("mail")
    assert harness.over == []
    harness.delivered("shop")
    harness.delivered("shop")
    assert harness.over == [(cause, ISS, "shop")]
    harness.deferred(cause, "shop", text="away", wait=256)
    harness.now += 255
    harness.delivered("shop")
    assert len(harness.over) == 1


def test_working_signing_key_releases_the_deferrals_of_its_issuer() -> None:
    """If a deferral of this worker is long, or if other workers may have long ones: no key signed for some seconds."""
    harness = Harness()
    harness.watch.on_key_signs(ISS, harness.now - 3)
    assert harness.over == []
    harness.watch.on_key_signs(ISS, harness.now - 10)
    harness.watch.on_key_signs(ISS)  # it is not known for how long
    harness.deferred(Cause.SIGNING, "shop", text="away", wait=256)
    harness.watch.on_key_signs(ISS, harness.now - 1)
    assert harness.over == [(Cause.SIGNING, ISS, "")] * 3
    harness.deferred(Cause.SIGNING, "shop", text="away", wait=256)
    harness.delivered("mail")
    harness.delivered("shop")
    assert harness.over[3:] == [(Cause.SIGNING, ISS, "shop")]  # another client may know another key


def test_invented_names_take_bounded_memory_and_few_log_lines() -> None:
    """Names of one issuer displace none of another; names over the limit share one count."""
    harness = Harness()
    harness.registry = Registry(issuers={ISS: Issuer(iss=ISS)}, clients={ISS: {"made-up-": client("made-up-")}})
    names = [f"made-up-{n}" for n in range(MAX_NAMES_PER_ISSUER + 50)]
    found = [harness.deferred(Cause.UNKNOWN, name, text=NO_SUCH_CLIENT) for name in names]
    assert sum(fact.first for fact in found) == MAX_NAMES_PER_ISSUER
    assert sum(bool(fact.hint) for fact in found) == MAX_SEARCHES
    harness.now += 1
    assert harness.deferred(Cause.UNKNOWN, names[MAX_SEARCHES], text=NO_SUCH_CLIENT).hint == "did you mean made-up-?"
    assert harness.deferred(Cause.UNKNOWN, iss=f"{ISS}/").first
    assert len(harness.troubles()) == MAX_NAMES_PER_ISSUER + 2
    harness.deferred(Cause.UNKNOWN, "new", text=NO_SUCH_CLIENT, earlier=1)  # it was counted before
    assert ("unknown_client", ISS, "", 50) in harness.troubles()
    harness.now += KEEP_SECONDS + 3
    assert harness.troubles() == []


def test_invented_names_displace_no_registered_client() -> None:
    """A source that moves thousands of clients is reported as such, and is not displaced by unknown names."""
    harness = Harness()
    for n in range(MAX_NAMES_PER_ISSUER + 2):
        harness.deferred(Cause.UNKNOWN, f"made-up-{n}", text=NO_SUCH_CLIENT)
    text = "backchannel_logout_uri leads to https://elsewhere.example, which no file names"
    found = [harness.deferred(Cause.ORIGIN, f"shop-{n}", text=text) for n in range(MAX_NAMES_PER_ISSUER + 3)]
    assert sum(fact.first for fact in found) == MAX_NAMES_PER_ISSUER
    others = [(each.kind, each.count) for each in harness.watch.troubles() if each.subject == "others"]
    assert others == [("unknown_client", 2), ("origin", 3)]
