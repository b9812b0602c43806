"""What is put off for a cause that somebody must remove is told once, with a hint, until it is over."""

from dataclasses import replace
from typing import Any

import pytest

from notifier.delivery.admission import NO_SUCH_CLIENT
from notifier.delivery.facts import DeadLettered, Deferred, Fact
from notifier.delivery.notices import notice_of
from notifier.model.client import Client
from notifier.model.fate import Notice
from notifier.model.outcome import Cause, DeadReason
from notifier.model.registry import Issuer, Registry
from notifier.model.trouble import TroubleKind
from notifier.operators.status.deferral_watch import KEEP_SECONDS, MAX_NAMES_PER_ISSUER, MAX_SEARCHES, DeferralWatch
from tests.delivery.worker_harness import ISS
from tests.operators.status.test_service_status import delivery_of
from tests.support.outcome_facts import delivered


class Rig:
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
        """Put something off, and return the fact that the observers get."""
        one = delivery_of(client_id, iss=iss, deferrals=earlier + 1) if client_id else None
        due = self.now + wait
        self.watch.observe(
            Deferred(iss=iss, client_id=client_id, event_id="e", cause=cause, due=due, text=text, delivery=one, **more)
        )
        fact = self.facts[-1]
        assert isinstance(fact, Deferred)
        return fact

    def delivered(self, client_id: str) -> None:
        """A client was told."""
        self.watch.observe(delivered(delivery_of(client_id)))

    def buried(self, client_id: str) -> None:
        """It was given up."""
        self.watch.observe(
            DeadLettered(iss=ISS, client_id=client_id, event_id="e", reason=DeadReason.UNKNOWN_CLIENT, text="")
        )

    def troubles(self) -> list[tuple[str, str, str, int]]:
        """What is wrong."""
        return [(each.kind, each.iss, each.client_id, each.count) for each in self.watch.troubles()]


def test_what_is_a_dead_letter_by_now_waits_no_longer() -> None:
    """Of two deliveries for a client that nobody knows."""
    told = Rig()
    for _ in range(2):
        told.deferred(Cause.UNKNOWN, "nobody", text=NO_SUCH_CLIENT)
    assert told.troubles() == [(TroubleKind.UNKNOWN_CLIENT, ISS, "nobody", 2)]
    told.buried("nobody")
    assert told.troubles() == [(TroubleKind.UNKNOWN_CLIENT, ISS, "nobody", 1)]
    told.buried("nobody")
    assert told.troubles() == []


def client(client_id: str) -> Client:
    """A client that is registered."""
    return Client(iss=ISS, client_id=client_id, backchannel_logout_uri="https://shop.example/out")


def notice(fact: Fact) -> Notice:
    """What its publisher hears."""
    made = notice_of(fact)
    assert made is not None
    return made


def test_an_unknown_issuer_is_told_once_with_the_nearest_name() -> None:
    """However many events name it; a look at the same event is no further event."""
    told = Rig()
    text = "not one of `issuers` (yet)"
    first = told.deferred(Cause.UNKNOWN, iss=f"{ISS}/", text=text)
    assert (first.first, first.hint) == (True, f"did you mean {ISS}, without the slash at the end?")
    assert notice(first).text == f"{text}; {first.hint}"
    assert not told.deferred(Cause.UNKNOWN, iss=f"{ISS}/", text=text).first
    assert not told.deferred(Cause.UNKNOWN, iss=f"{ISS}/", text=text, again=True).first
    assert told.troubles() == [("unknown_issuer", f"{ISS}/", "", 2)]
    told.registry = Registry(issuers={f"{ISS}/": Issuer(iss=f"{ISS}/")})
    assert told.troubles() == []


def test_an_unknown_client_is_told_until_it_is_registered() -> None:
    """And told again if it is unknown anew, long after."""
    told = Rig()
    first = told.deferred(Cause.UNKNOWN, "shopp", text=NO_SUCH_CLIENT)
    assert (first.first, first.hint) == (True, "did you mean shop?")
    assert not told.deferred(Cause.UNKNOWN, "shopp", text=NO_SUCH_CLIENT).first
    assert told.troubles() == [("unknown_client", ISS, "shopp", 2)]
    told.now += KEEP_SECONDS + 3
    assert told.troubles() == []
    assert told.deferred(Cause.UNKNOWN, "shopp", text=NO_SUCH_CLIENT).first


def test_an_unknown_client_whose_row_is_left_out_is_told_so() -> None:
    """With why, in place of a near name, as long as it is so; to operators, since it names settings of ours."""
    told = Rig()
    why = "is beyond db (registry source db)"
    plain = told.registry
    told.registry = replace(plain, refused={ISS: {"shopp": why}})
    first = told.deferred(Cause.UNKNOWN, "shopp", text=NO_SUCH_CLIENT)
    assert (first.hint, notice(first).text) == (f"its row is left out: {why}", NO_SUCH_CLIENT)
    [trouble] = told.watch.troubles()
    assert trouble.text == f"{NO_SUCH_CLIENT}; its row is left out: {why}"
    told.registry = replace(plain, faults={ISS: {"shopp": "has no address (registry source kc)"}})
    [trouble] = told.watch.troubles()
    assert "has no address (registry source kc)" in trouble.text
    told.registry = plain
    [trouble] = told.watch.troubles()
    assert "left out" not in trouble.text


def test_a_key_that_cannot_sign_is_told_once_for_its_issuer() -> None:
    """Until each client that was put off for it was attempted; other clients of the issuer say nothing of it."""
    told = Rig()
    text = "issuer has no key for ES256"
    first = told.deferred(Cause.SIGNING, "shop", text=text)
    assert (first.first, notice(first).text) == (True, text)
    assert not told.deferred(Cause.SIGNING, "mail", text=text).first
    for name, left in (("rsa", 1), ("shop", 1), ("mail", 0)):
        told.delivered(name)
        assert len(told.troubles()) == left
    assert told.deferred(Cause.SIGNING, "shop", text=text).first
    told.watch.on_key_signs(ISS)
    assert told.troubles() == []


def test_what_the_client_causes_is_not_told() -> None:
    """Nor does a publisher hear of files and proxies of ours."""
    told = Rig()
    assert not told.deferred(Cause.SLOT, "shop").first
    assert told.troubles() == []
    fact = told.deferred(Cause.TLS_FILES, "shop", text="/etc/notifier/ca.pem: no such file")
    assert (fact.first, notice(fact).text) == (True, "")


@pytest.mark.parametrize("cause", [Cause.ENCRYPTION, Cause.ORIGIN])
def test_a_key_or_an_origin_that_a_client_lacks_is_told_until_the_client_was_attempted(cause: Cause) -> None:
    """Of that client alone, and not to its publisher."""
    told = Rig()
    text = "its tokens must be encrypted, and its jwks_uri https://shop.example/jwks cannot be read: answered 503"
    first = told.deferred(cause, "shop", text=text)
    assert (first.first, notice(first).text) == (True, "")
    assert not told.deferred(cause, "shop", text=text).first
    assert told.troubles() == [(cause, ISS, "shop", 2)]
    told.delivered("shop")
    assert told.troubles() == []


CAUSES = [Cause.ENCRYPTION, Cause.TLS_FILES, Cause.PROXY, Cause.ORIGIN]


@pytest.mark.parametrize("cause", CAUSES)
def test_a_client_that_is_attempted_frees_what_waits_for_the_same_cause(cause: Cause) -> None:
    """Once; not for another client; and not for what comes within seconds by itself."""
    told = Rig()
    told.deferred(cause, "shop", text="away", wait=4)
    told.delivered("shop")
    assert told.over == []
    told.deferred(cause, "shop", text="away", wait=256)
    told.delivered("mail")
    assert told.over == []
    told.delivered("shop")
    told.delivered("shop")
    assert told.over == [(cause, ISS, "shop")]
    told.deferred(cause, "shop", text="away", wait=256)
    told.now += 255
    told.delivered("shop")
    assert len(told.over) == 1


def test_a_key_that_signs_frees_all_that_waits_for_its_issuer() -> None:
    """If something waits for long: what was put off here, or by other workers for as long as the key was away."""
    told = Rig()
    told.watch.on_key_signs(ISS, told.now - 3)
    assert told.over == []
    told.watch.on_key_signs(ISS, told.now - 10)
    told.watch.on_key_signs(ISS)  # it is not known for how long
    told.deferred(Cause.SIGNING, "shop", text="away", wait=256)
    told.watch.on_key_signs(ISS, told.now - 1)
    assert told.over == [(Cause.SIGNING, ISS, "")] * 3
    told.deferred(Cause.SIGNING, "shop", text="away", wait=256)
    told.delivered("mail")
    told.delivered("shop")
    assert told.over[3:] == [(Cause.SIGNING, ISS, "shop")]  # another client may know another key


def test_made_up_names_cost_bounded_memory_and_few_lines() -> None:
    """Those of one issuer hide nothing of another; all that are left out count as one."""
    told = Rig()
    told.registry = Registry(issuers={ISS: Issuer(iss=ISS)}, clients={ISS: {"made-up-": client("made-up-")}})
    names = [f"made-up-{n}" for n in range(MAX_NAMES_PER_ISSUER + 50)]
    found = [told.deferred(Cause.UNKNOWN, name, text=NO_SUCH_CLIENT) for name in names]
    assert sum(fact.first for fact in found) == MAX_NAMES_PER_ISSUER
    assert sum(bool(fact.hint) for fact in found) == MAX_SEARCHES
    told.now += 1
    assert told.deferred(Cause.UNKNOWN, names[MAX_SEARCHES], text=NO_SUCH_CLIENT).hint == "did you mean made-up-?"
    assert told.deferred(Cause.UNKNOWN, iss=f"{ISS}/").first
    assert len(told.troubles()) == MAX_NAMES_PER_ISSUER + 2
    told.deferred(Cause.UNKNOWN, "new", text=NO_SUCH_CLIENT, earlier=1)  # it was counted before
    assert ("unknown_client", ISS, "", 50) in told.troubles()
    told.now += KEEP_SECONDS + 3
    assert told.troubles() == []


def test_made_up_names_hide_no_client_of_ours_and_the_others_keep_their_cause() -> None:
    """A list that moves thousands of clients is not told as names that nobody knows, nor hidden by such names."""
    told = Rig()
    for n in range(MAX_NAMES_PER_ISSUER + 2):
        told.deferred(Cause.UNKNOWN, f"made-up-{n}", text=NO_SUCH_CLIENT)
    text = "backchannel_logout_uri leads to https://elsewhere.example, which no file names"
    found = [told.deferred(Cause.ORIGIN, f"shop-{n}", text=text) for n in range(MAX_NAMES_PER_ISSUER + 3)]
    assert sum(fact.first for fact in found) == MAX_NAMES_PER_ISSUER
    others = [(each.kind, each.count) for each in told.watch.troubles() if each.subject == "others"]
    assert others == [("unknown_client", 2), ("origin", 3)]
