"""Metrics of front-channel pages: what is counted under which name."""

from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

from notifier.features.browsers.front_channel_counts import FrontChannelCounts
from notifier.features.browsers.front_channel_report import BrowserReach, PageEnd
from notifier.model.client import Client
from notifier.model.front_channel import Unbrought
from notifier.model.registry import Issuer, Registry
from notifier.telemetry.metrics import Metrics
from notifier.telemetry.metrics_page import MetricsPage

ISS = "https://id.example.com"
REACHED, UNREACHABLE, UNKNOWN = BrowserReach
Samples = Mapping[tuple[str, ...], float]


def registry(*client_ids: str) -> Registry:
    clients = {each: Client(iss=ISS, client_id=each, backchannel_logout_uri=None) for each in client_ids}
    return Registry(issuers={ISS: Issuer(iss=ISS)}, clients={ISS: clients})


def counting(*client_ids: str) -> tuple[MetricsPage, FrontChannelCounts]:
    """The metrics of a worker with these clients, and what counts the pages."""
    subject = Metrics(lambda: registry(*client_ids))
    counts = FrontChannelCounts(subject.label)
    return MetricsPage(subject, more=[counts.families]), counts


async def scrape(subject: MetricsPage) -> Samples:
    page = (await subject.render()).decode()
    prefix = "notifier_front_channel_"
    return {
        (
            sample.name.removeprefix(prefix),
            *(sample.labels[name] for name in ("iss", "client_id", "result", "reason") if name in sample.labels),
        ): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name.startswith(prefix)
    }


async def test_pages_and_reports_exist_at_zero_from_the_start() -> None:
    """So that the first one is an increase. A client's begin with the first page that asks it."""
    subject, counts = counting("shop")
    assert await scrape(subject) == {
        ("pages_total", "shown"): 0,
        ("pages_total", "refused"): 0,
        **{("left_out_total", str(reason)): 0 for reason in Unbrought},
        **{("reports_total", result): 0 for result in ("done", "limit", "left", "repeated", "refused")},
    }
    counts.page_shown(ISS, ["shop"])
    samples = await scrape(subject)
    assert samples["pages_total", "shown"] == 1
    assert {labels: value for labels, value in samples.items() if labels[0] == "clients_total"} == {
        ("clients_total", ISS, "shop", result): 0 for result in ("reached", "unreachable", "unknown")
    }


async def test_each_report_counts_once_where_it_belongs() -> None:
    """By how its page ended, and what it could tell of each client."""
    subject, counts = counting("shop", "mail")
    counts.reported(PageEnd.LIMIT, ISS, [("shop", REACHED), ("mail", UNKNOWN)])
    counts.reported(PageEnd.DONE, ISS, [("shop", REACHED), ("mail", UNREACHABLE)])
    counts.left_out(Unbrought.SPEAKER, 2)
    for count in (counts.page_refused, counts.report_repeated, counts.report_refused):
        count()
    counted = {labels: value for labels, value in (await scrape(subject)).items() if value}
    assert counted == {
        ("pages_total", "refused"): 1,
        ("left_out_total", "speaker"): 2,
        ("reports_total", "limit"): 1,
        ("reports_total", "done"): 1,
        ("reports_total", "repeated"): 1,
        ("reports_total", "refused"): 1,
        ("clients_total", ISS, "shop", "reached"): 2,
        ("clients_total", ISS, "mail", "unknown"): 1,
        ("clients_total", ISS, "mail", "unreachable"): 1,
    }
