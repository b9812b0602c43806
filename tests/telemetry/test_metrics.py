"""Test metrics: the names, labels and values for dashboards, and the cost of a scrape."""

import asyncio
import itertools
from collections.abc import Mapping
from dataclasses import replace

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from notifier import __version__
from notifier.delivery.facts import (
    Attempted,
    ClientServed,
    DeadLettered,
    Deferred,
    EventTaken,
    IgnoredOverrides,
    MembersMisspelt,
    RetryScheduled,
    Skipped,
    Unexpected,
)
from notifier.model.client import Client
from notifier.model.delivery import Delivery
from notifier.model.message import Depth, Lane, QueueStatus, Unsettled
from notifier.model.outcome import Cause, DeadReason, Delivered, Failed, Reason, Refused
from notifier.model.registry import InlineRule, Issuer, Registry
from notifier.model.session_ended import MisspeltMember
from notifier.telemetry.metrics import Metrics
from notifier.telemetry.metrics_page import MetricsPage, MetricsSources
from tests.support.outcome_facts import attempted, delivered

ISS = "https://id.example.com"
Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


class Now:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


def registry(*client_ids: str, inline: InlineRule = "publishers") -> Registry:
    clients = {
        client_id: Client(iss=ISS, client_id=client_id, backchannel_logout_uri="https://a.example/")
        for client_id in client_ids
    }
    return Registry(issuers={ISS: Issuer(iss=ISS)}, clients={ISS: clients}, inline=inline)


def metrics(known: Registry, *, max_clients: int = 500) -> Metrics:
    return Metrics(lambda: known, max_clients=max_clients, clock=Now())


def delivery(client_id: str, iss: str = ISS) -> Delivery:
    return Delivery(
        id="d", event_id="e", id_given=True, iss=iss, client_id=client_id, sub="raw-sub-77", sid="raw-sid-88"
    )


def attempt(client_id: str, met: Delivered | Refused | Failed, *, jti: str = "j", iss: str = ISS) -> Attempted:
    return attempted(delivery(client_id, iss), met, jti=jti)


async def scrape(subject: Metrics, sources: MetricsSources | None = None) -> Samples:
    page = (await MetricsPage(subject, sources).render()).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((f"notifier_{name}", frozenset(labels.items())))


async def test_closed_labels_without_a_client_exist_at_zero_from_the_start() -> None:
    """Before any fact: every result, every dead reason without a client, the gauges and the versions."""
    samples = await scrape(metrics(registry("shop")))
    for result in ("accepted", "duplicate", "split", "malformed"):
        assert value(samples, "events_total", result=result) == 0
    for reason in DeadReason:
        assert value(samples, "dead_letters_total", iss="", client_id="", reason=reason) == 0
    for name in ("events_undated_total", "attempt_seconds_count", "in_flight", "queue_connected", "publishing_blocked"):
        assert value(samples, name) == 0
    assert value(samples, "config_last_reload_success") == 1
    assert value(samples, "build_info", version=__version__) == 1
    for lane in Lane:
        assert value(samples, "queue_unsettled", queue=lane) == 0
        assert value(samples, "queue_oldest_seconds", queue=lane) == 0
    assert not any(("client_id", "shop") in labels for _, labels in samples), "a client's begin at its first delivery"
    assert value(samples, "attempts_total", iss="", client_id="", reason="delivered") is None


async def test_all_series_of_a_client_start_at_zero() -> None:
    """At its first delivery every series of a client exists, so that the first failure is an increase."""
    subject = metrics(registry("shop"))
    subject.observe(attempt("shop", Delivered(status=200)))
    samples = await scrape(subject)
    for reason in Reason:
        expected = 1 if reason is Reason.DELIVERED else 0
        assert value(samples, "attempts_total", iss=ISS, client_id="shop", reason=reason) == expected
    for dead in DeadReason:
        assert value(samples, "dead_letters_total", iss=ISS, client_id="shop", reason=dead) == 0
    for cause in Cause:
        assert value(samples, "deferrals_total", iss=ISS, client_id="shop", cause=cause) == 0
    for fate in ("delivered", "dead", "skipped"):
        assert value(samples, "deliveries_settled_total", iss=ISS, client_id="shop", fate=fate) == (fate == "delivered")
    assert value(samples, "retries_scheduled_total", iss=ISS, client_id="shop") == 0
    assert value(samples, "circuit_state", iss=ISS, client_id="shop") == 0
    bounds = [labels for name, labels in samples if name == "notifier_propagation_seconds_bucket"]
    assert len(bounds) == 8


async def test_each_fact_is_counted_once() -> None:
    """By the table of metrics, fact by fact."""
    subject = metrics(registry("shop"))
    shop = {"iss": ISS, "client_id": "shop"}
    taken = EventTaken(result="accepted", event_id="e", iss=ISS, publisher=None, deliveries=1, dated=False)
    for fact in (
        taken,
        replace(taken, result="duplicate"),
        replace(taken, result="accepted", dated=True),
        attempt("shop", Failed(reason=Reason.TIMEOUT, ended_early=True)),
        attempt("shop", Refused(reason=Reason.EGRESS_DENIED), jti=""),
        RetryScheduled(delivery=delivery("shop"), due=1.0),
        Deferred(iss=ISS, client_id="shop", event_id="e", cause=Cause.SLOT, due=1.0),
        delivered(delivery("shop"), propagation=0.7),
        delivered(delivery("shop"), propagation=None),
        Skipped(iss=ISS, client_id="shop", event_id="e"),
        IgnoredOverrides(iss=ISS, event_id="e", publisher=None, clients=3, members={}, denied=False),
        MembersMisspelt(iss=ISS, event_id="e", publisher=None, members=[MisspeltMember(written="SID", meant="sid")]),
        DeadLettered(iss=ISS, client_id="shop", event_id="e", reason=DeadReason.REFUSED, text=""),
        Unexpected(iss=ISS, client_id="shop", event_id="e", error=ValueError()),
    ):
        subject.observe(fact)
    samples = await scrape(subject)
    assert value(samples, "events_total", result="accepted") == 2
    assert value(samples, "events_total", result="duplicate") == 1
    assert value(samples, "events_undated_total") == 1
    assert value(samples, "attempts_total", **shop, reason="timeout") == 1
    assert value(samples, "attempts_ended_early_total") == 1
    assert value(samples, "attempts_total", **shop, reason="egress_denied") == 1
    assert value(samples, "attempt_seconds_count") == 4
    assert value(samples, "attempt_seconds_bucket", le="0.01") == 0
    assert value(samples, "attempt_seconds_bucket", le="0.025") == 4
    assert value(samples, "attempts_total", **shop, reason="delivered") == 2
    assert value(samples, "tokens_minted_total", iss=ISS, alg="RS256") == 3
    assert value(samples, "retries_scheduled_total", **shop) == 1
    assert value(samples, "events_unheard_total") == 1
    assert value(samples, "event_members_unread_total", member="ended_at") == 0
    assert value(samples, "event_remarks_total", member="sid") == 1
    assert value(samples, "event_remarks_total", member="clients") == 0
    assert value(samples, "own_faults_total") == 1
    assert value(samples, "deferrals_total", **shop, cause="slot") == 1
    assert value(samples, "propagation_seconds_bucket", **shop, le="0.25") == 0
    assert value(samples, "propagation_seconds_bucket", **shop, le="1.0") == 1
    assert value(samples, "propagation_seconds_bucket", **shop, le="+Inf") == 1
    assert value(samples, "propagation_seconds_count", **shop) == 1
    assert value(samples, "propagation_seconds_sum", **shop) == 0.7
    assert value(samples, "dead_letters_total", **shop, reason="refused") == 1
    for fate, count in (("delivered", 2), ("dead", 1), ("skipped", 1)):
        assert value(samples, "deliveries_settled_total", **shop, fate=fate) == count


async def test_only_the_first_clients_have_own_labels() -> None:
    """The first `max_clients` in file order; the others, inline ones and unknown ones share a label each."""
    subject = metrics(registry("zebra", "apple", "mango"), max_clients=2)
    for client_id in ("zebra", "apple", "mango", "surprise"):
        subject.observe(attempt(client_id, Delivered(status=200)))
    subject.observe(Deferred(iss=ISS, client_id="nobody", event_id="e", cause=Cause.UNKNOWN, due=1.0))
    subject.observe(DeadLettered(iss=ISS, client_id="nobody", event_id="e", reason=DeadReason.UNKNOWN_CLIENT, text=""))
    samples = await scrape(subject)
    labels = {dict(labels).get("client_id", "") for _, labels in samples}
    assert labels == {"", "zebra", "apple", "_other", "_inline", "_unknown"}
    assert value(samples, "dead_letters_total", iss=ISS, client_id="_unknown", reason="unknown_client") == 1


async def test_only_the_first_clients_have_the_series_of_a_pause() -> None:
    """One for all others would make the alerts about them silent."""
    sources = MetricsSources(pauses=lambda: (0.0, {(ISS, "shop"): 2000.0, (ISS, "mail"): 3000.0, (ISS, "gone"): 4.0}))
    samples = await scrape(metrics(registry("shop", "mail"), max_clients=1), sources)
    paused = {dict(labels)["client_id"]: end for (name, labels), end in samples.items() if "paused_until" in name}
    assert paused == {"shop": 2000.0}


async def test_invented_names_create_no_series() -> None:
    """Thousands of unknown issuers and clients share one label."""
    subject = metrics(registry("shop"))
    before = len(await scrape(subject))
    for n in range(2000):
        subject.observe(
            DeadLettered(
                iss=f"https://{n}.example", client_id="", event_id="e", reason=DeadReason.UNKNOWN_ISSUER, text=""
            )
        )
        subject.observe(attempt(f"made-up-{n}", Delivered(status=200), iss=f"https://{n}.example"))
    samples = await scrape(subject)
    assert len(samples) < before + 100
    assert value(samples, "dead_letters_total", iss="_unknown", client_id="", reason="unknown_issuer") == 2000
    assert value(samples, "tokens_minted_total", iss="_unknown", alg="RS256") == 2000


async def test_labels_follow_a_reload_and_counts_continue() -> None:
    """A client that left the registry loses its series; the others keep their numbers."""
    known = [registry("shop", "mail")]
    subject = Metrics(lambda: known[0], max_clients=500, clock=Now())
    for client_id in ("shop", "mail"):
        subject.observe(attempt(client_id, Delivered(status=200)))
    known[0] = registry("mail", inline="deny")
    for client_id in ("shop", "mail"):
        subject.observe(attempt(client_id, Delivered(status=200)))
    samples = await scrape(subject)
    assert value(samples, "attempts_total", iss=ISS, client_id="mail", reason="delivered") == 2
    assert value(samples, "attempts_total", iss=ISS, client_id="shop", reason="delivered") is None
    assert value(samples, "attempts_total", iss=ISS, client_id="_unknown", reason="delivered") == 1


async def test_gauges_are_read_at_the_scrape() -> None:
    """Connection, circuits, depths, keys and reloads at that time."""
    subject = metrics(registry("shop", "mail", "wiki"), max_clients=1)
    for client_id in ("shop", "mail", "wiki"):
        subject.observe(attempt(client_id, Delivered(status=200)))
    sources = MetricsSources(
        in_flight=lambda: 7,
        queue=lambda: QueueStatus(connected=True, consuming=True, blocked=True, refusing=6),
        unsettled=lambda: {Lane.EVENTS: Unsettled(messages=3, set_aside=2, oldest=940.0)},
        circuits=lambda: [(ISS, "shop", 1), (ISS, "wiki", 2), (ISS, "mail", 1)],
        waiting=lambda: [(ISS, "shop", 2), (ISS, "wiki", 4), (ISS, "shop", -5), (ISS, "mail", 1)],
        reload_succeeded=lambda: False,
        signing_keys=lambda: [(ISS, "k1", True), (ISS, "k2", False)],
        ready=lambda: True,
        loop_lag=lambda: 0.25,
        certificates=lambda: [("api", "/t.pem", 1_900_000_000.0)],
        library_hooks=lambda: {"frames": False, "requests": True},
    )
    subject.queues.set_depths({"events": Depth(ready=5, consumers=2), "dead": Depth(ready=9, consumers=0)})
    samples = await scrape(subject, sources)
    assert value(samples, "in_flight") == 7
    assert value(samples, "queue_connected") == 1
    assert value(samples, "publishing_blocked") == 1
    assert value(samples, "queues_refusing") == 6
    assert value(samples, "ready") == 1
    assert value(samples, "loop_lag_seconds") == 0.25
    assert value(samples, "certificate_expiry_timestamp_seconds", use="api", file="/t.pem") == 1_900_000_000
    assert [value(samples, "library_hooks", hook=hook) for hook in ("frames", "requests")] == [0, 1]
    assert value(samples, "config_last_reload_success") == 0
    assert value(samples, "signing_key_published", iss=ISS, kid="k1") == 1
    assert value(samples, "signing_key_published", iss=ISS, kid="k2") == 0
    assert value(samples, "circuit_state", iss=ISS, client_id="shop") == 1
    assert value(samples, "circuit_state", iss=ISS, client_id="_other") == 2
    assert value(samples, "waiting_deliveries", iss=ISS, client_id="shop") == -3, "in memory and in its bucket"
    assert value(samples, "waiting_deliveries", iss=ISS, client_id="_other") == 5
    assert value(samples, "queue_messages", queue="dead") == 9
    assert value(samples, "queue_consumers", queue="events") == 2
    assert value(samples, "queue_unsettled", queue="events") == 3
    assert value(samples, "queue_set_aside", queue="events") == 2
    assert value(samples, "queue_oldest_seconds", queue="events") == 60
    assert value(await scrape(subject), "circuit_state", iss=ISS, client_id="shop") == 0


async def test_recovery_time_of_clients() -> None:
    """Once per recovery, when no delivery is parked for the client."""
    subject = metrics(registry("shop"))
    for seconds in (0.5, 5.0, 4000.0):
        subject.observe(ClientServed(iss=ISS, client_id="shop", seconds=seconds))
    samples = await scrape(subject)
    assert value(samples, "recovery_seconds_bucket", le="1.0") == 1
    assert value(samples, "recovery_seconds_bucket", le="5.0") == 2
    assert value(samples, "recovery_seconds_bucket", le="3600.0") == 2
    assert value(samples, "recovery_seconds_bucket", le="+Inf") == 3
    assert value(samples, "recovery_seconds_sum") == 4005.5


async def test_oldest_message_is_younger_than_the_last_empty_queue() -> None:
    """Pending messages at the broker are younger than the last taken one and the last time of an empty queue."""
    now = Now()
    subject = Metrics(lambda: registry("shop"), clock=now)
    sources = MetricsSources(unsettled=lambda: {Lane.EVENTS: Unsettled(last_taken=1005.0)})

    async def oldest() -> float | None:
        return value(await scrape(subject, sources), "queue_oldest_seconds", queue="events")

    now.at = 1100.0
    assert await oldest() == 0, "nothing waits as far as is known"
    subject.queues.set_depths({"events": Depth(ready=4, consumers=1)})
    assert await oldest() == 95, "the age of the last taken, and the time since"
    subject.queues.set_depths({"events": Depth(ready=0, consumers=1)})
    assert await oldest() == 0
    now.at = 1110.0
    subject.queues.set_depths({"events": Depth(ready=1, consumers=1)})
    assert await oldest() == 10, "after a quiet time, a message is new"


async def test_unusual_names_do_not_break_the_page() -> None:
    """Quotes, newlines, backslashes and lone surrogates in a client_id still yield a valid page."""
    strange = 'a"b\\c\nd{}\ud800é'
    subject = metrics(registry(strange))
    subject.observe(attempt(strange, Delivered(status=200)))
    samples = await scrape(subject)
    seen = {dict(labels).get("client_id") for _, labels in samples}
    assert 'a"b\\c\nd{}\\ud800é' in seen


async def test_openmetrics_has_exemplars() -> None:
    """The publisher's trace id if present, else the `jti`; the page is the same otherwise."""
    subject = metrics(registry("shop"))
    plain_before = await scrape(subject)
    subject.observe(attempt("shop", Delivered(status=200), jti="j-1"))
    traced = replace(
        attempt("shop", Delivered(status=200)).delivery, trace="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    )
    subject.observe(replace(attempt("shop", Delivered(status=200), jti="j-2"), delivery=traced, seconds=0.2))
    page = (await MetricsPage(subject).render(openmetrics=True)).decode()
    assert page.endswith("\n# EOF\n")
    assert page.count("# EOF") == 1
    families = list(openmetrics_families(page))  # type: ignore[no-untyped-call]
    samples = [sample for family in families for sample in family.samples]
    examples = {sample.labels["le"]: sample.exemplar.labels for sample in samples if sample.exemplar is not None}
    assert examples == {"0.025": {"jti": "j-1"}, "0.25": {"trace_id": "0af7651916cd43dd8448eb211c80319c"}}
    told = {sample.name for sample in samples if sample.name.startswith("notifier_")}
    assert told == {name for name, _ in await scrape(subject) if name.startswith("notifier_")}
    assert plain_before.keys() <= (await scrape(subject)).keys()
    assert "j-1" not in (await MetricsPage(subject).render()).decode(), "the text format knows no exemplars"


async def test_scrape_of_10000_labels_is_sent_in_small_pieces() -> None:
    """49 MB, of which no piece is a tenth, so that the loop runs between them, for any number of clients.

    Measured on an idle machine: 120 to 160 ms in all, and turns of 3 to 5 ms.
    """
    names = [f"client-{n}" for n in range(10_000)]
    subject = metrics(registry(*names), max_clients=10_000)
    for name in names:
        subject.observe(attempt(name, Delivered(status=200)))
    turns, over = itertools.count(), False

    async def count_turns() -> None:
        while not over:
            next(turns)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        group.create_task(count_turns())
        sizes = [len(chunk) async for chunk in MetricsPage(subject).chunks(openmetrics=True)]
        over = True
    assert sum(sizes) > 40_000_000
    assert max(sizes) < sum(sizes) / 10
    assert next(turns) >= 5
