"""The alerts and recording rules: each fires when it must and not when it must not, by promtool itself."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from notifier.configuration.live_configuration import LiveConfiguration
from notifier.configuration.loading import load
from notifier.delivery.facts import Deferred
from notifier.features import FEATURES
from notifier.model.client import Algorithm
from notifier.model.outcome import Cause
from notifier.service.service import Service
from notifier.telemetry.metrics_page import MetricsPage, MetricsSources
from notifier.tokens.key_files import generate_key
from tests.support.apt_programs import program

pytestmark = pytest.mark.timeout(600)  # the first run on a machine installs promtool

RULES = Path(__file__).parents[2] / "deploy" / "prometheus"
RUNBOOK = "https://notifier.example.org/docs/runbook.md"
CASES = ("tests.yaml", "tests-long.yaml")


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it beside the rules, to its end."""
    command = [program("promtool", "prometheus"), *arguments]
    return subprocess.run(command, cwd=RULES, capture_output=True, text=True, timeout=300, check=False)


def rules(name: str) -> list[dict[str, Any]]:
    """All rules of a file."""
    return [rule for group in yaml.safe_load((RULES / name).read_text())["groups"] for rule in group["rules"]]


def test_rules_are_as_prometheus_wants_them() -> None:
    """Both files load."""
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", "recording.yaml", "alerts.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", CASES)
def test_every_case_fires_what_it_must_and_nothing_else(name: str) -> None:
    """Each case looks at all alerts at once."""
    done = promtool("test", "rules", name)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case() -> None:
    """An alert that no case makes fire is not tested; that it is silent elsewhere is, by every other case."""
    cases = [case for name in CASES for case in yaml.safe_load((RULES / name).read_text())["tests"]]
    samples = [sample for case in cases for look in case["promql_expr_test"] for sample in look["exp_samples"]]
    fired = {found for sample in samples for found in re.findall(r'alertname="(\w+)"', sample["labels"])}
    assert fired == {rule["alert"] for rule in rules("alerts.yaml")}
    assert sum(not look["exp_samples"] for case in cases for look in case["promql_expr_test"]) > 20


def test_queries_of_the_document_give_share_and_times_of_each_client(tmp_path: Path) -> None:
    """The PromQL of docs/outcomes.md, over a day and two workers; a client with dead letters alone has the share 0."""
    queries = re.findall(r"```promql\n(.*?)```", (RULES.parents[1] / "docs/outcomes.md").read_text(), re.DOTALL)
    settled, took = "notifier_deliveries_settled_total", "notifier_propagation_seconds_bucket"
    steps = {
        f'{settled}{{iss="i",client_id="shop",fate="delivered",instance="a"}}': 2,
        f'{settled}{{iss="i",client_id="shop",fate="delivered",instance="b"}}': 1,
        f'{settled}{{iss="i",client_id="shop",fate="dead",instance="b"}}': 1,
        f'{settled}{{iss="i",client_id="shop",fate="skipped",instance="b"}}': 9,
        f'{settled}{{iss="i",client_id="down",fate="delivered",instance="a"}}': 0,
        f'{settled}{{iss="i",client_id="down",fate="dead",instance="a"}}': 1,
        f'{took}{{iss="i",client_id="shop",le="0.1",instance="a"}}': 50,
        f'{took}{{iss="i",client_id="shop",le="1",instance="a"}}': 98,
        f'{took}{{iss="i",client_id="shop",le="5",instance="a"}}': 100,
        f'{took}{{iss="i",client_id="shop",le="+Inf",instance="a"}}': 100,
    }
    shares = [
        {"labels": '{iss="i", client_id="down"}', "value": 0},
        {"labels": '{iss="i", client_id="shop"}', "value": 0.75},
    ]
    shop = '{iss="i", client_id="shop"}'
    expected = [shares, [{"labels": shop, "value": 0.1}], [{"labels": shop, "value": 3}]]
    series = [{"series": name, "values": f"0+{step}x1440"} for name, step in steps.items()]
    looks = [
        {"expr": query, "eval_time": "1d", "exp_samples": samples}
        for query, samples in zip(queries, expected, strict=True)
    ]
    cases = tmp_path / "queries.yaml"
    cases.write_text(yaml.safe_dump({"tests": [{"interval": "1m", "input_series": series, "promql_expr_test": looks}]}))
    done = promtool("test", "rules", str(cases))
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_alert_says_who_must_act_and_where_to_read() -> None:
    """Page or ticket, the service to route by, words, and a section of the runbook."""
    for alert in rules("alerts.yaml"):
        name, labels, told = alert["alert"], alert["labels"], alert["annotations"]
        assert labels["severity"] in {"page", "ticket"}, name
        assert labels["service"] == "notifier", name
        assert told["summary"], name
        assert told["description"], name
        assert told["runbook_url"] == f"{RUNBOOK}#{name.lower()}"


async def test_rules_ask_for_metrics_that_there_are(tmp_path: Path) -> None:
    """Every name in an expression is on the page of a worker, or recorded by a rule; and so is every `le`."""
    (tmp_path / "key.pem").write_bytes(generate_key(Algorithm.RS256))
    client = {"client_id": "shop", "backchannel_logout_uri": "https://s/"}
    issuers = {"https://i": {"keys": [{"file": "key.pem"}]}}
    queue, spool = {"url": "amqp://localhost"}, {"folder": str(tmp_path / "spool")}
    settings = {"issuers": issuers, "registry": {"file": "clients.yaml"}, "queue": queue, "spool": spool}
    for name, document in (("clients.yaml", [client]), ("n.yaml", settings)):
        (tmp_path / name).write_text(yaml.safe_dump(document))
    file = tmp_path / "n.yaml"
    service = Service(LiveConfiguration(file, {}, load(file, {}, FEATURES)))
    sources = MetricsSources(certificates=lambda: [("api", "t.pem", 1.0)], signing_keys=lambda: [("i", "k", True)])
    service.metrics.observe(Deferred(iss="https://i", client_id="shop", event_id="e", cause=Cause.SLOT, due=1.0))
    page = (await service.metrics_page.render() + await MetricsPage(service.metrics, sources).render()).decode()
    there = set(re.findall(r"^(?:# TYPE )?(notifier_\w+)", page, re.MULTILINE))
    recorded = {rule["record"] for rule in rules("recording.yaml")}
    text = " ".join(rule["expr"] for name in ("recording.yaml", "alerts.yaml") for rule in rules(name))
    for used in re.findall(r"\b((?:client:|job:)?notifier_[\w:]+)", text):
        assert used in (recorded if ":" in used else there), used
    for bound in re.findall(r'le="([^"]+)"', text):
        assert f'le="{bound}"' in page
