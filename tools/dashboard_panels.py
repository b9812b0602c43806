"""What the dashboard shows: each panel with its queries, apart from how Grafana has it (`dashboard`).

Every query filters by `namespace` and `job`, like the rules, so that one Grafana can show several installations.
It needs the recording rules of deploy/prometheus.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

HERE = 'namespace=~"$namespace",job=~"$job"'
CLIENT = f'{HERE},iss=~"$iss",client_id=~"$client"'
GOOD, SO_SO, BAD = "green", "orange", "red"
RUNBOOK = "https://notifier.example.org/docs/runbook.md"  # as in alerts.yaml: the same command puts your own in
BY_REASON, BY_FIELD = "${__field.labels.reason}", "${__data.fields.reason}"

Kind = Literal["stat", "lines", "areas", "heatmap", "table", "states"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Moments that all panels show. `query` gives the moment as its value if `by_value`, else what it is true for."""

    name: str
    query: str
    title: str
    color: str
    by_value: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel. `queries` as (PromQL, legend); `steps` as (from, colour), the first from minus infinity.

    `read`: the section of the runbook that a click on a value leads to.
    """

    title: str
    kind: Kind
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    width: int = 8
    text: str = ""
    read: str = ""
    steps: Sequence[tuple[float | None, str]] = field(default=())


def _at_a_glance() -> list[Panel]:
    def number(title: str, query: str, unit: str, text: str, *steps: tuple[float | None, str]) -> Panel:
        return Panel(title=title, kind="stat", queries=[(query, "")], unit=unit, width=3, text=text, steps=steps)

    return [
        number(
            "Workers ready", f"sum(notifier_ready{{{HERE}}})", "short",
            "Workers whose /readyz reports ready.", (None, BAD), (1, SO_SO), (2, GOOD),
        ),
        number(
            "On time", f"min(1 - job:notifier_logouts_late:ratio_1h{{{HERE}}})", "percentunit",
            "Of the logouts of the last hour, how many were with their client within 30 s of the session's end; "
            "clients that fail are left out. The objective is 99 %.", (None, BAD), (0.94, SO_SO), (0.99, GOOD),
        ),
        number(
            "Logouts", f'sum(client:notifier_settled:rate5m{{{HERE},fate="delivered"}})', "ops", "Delivered, a second.",
            (None, GOOD),
        ),
        number(
            "p99: ended → logged out", f"max(job:notifier_propagation_seconds:p99_5m{{{HERE}}})", "s",
            "Of the last five minutes.", (None, GOOD), (5, SO_SO), (30, BAD),
        ),
        number(
            "Oldest event that waits", f'max(notifier_queue_oldest_seconds{{{HERE},queue=~"events|source[.].+"}})', "s",
            "0 when nothing waits.", (None, GOOD), (10, SO_SO), (60, BAD),
        ),
        number(
            "Clients down", f"sum(client:notifier_circuit_state:max{{{HERE}}} > bool 0)", "short",
            "Clients whose circuit is open or half-open.", (None, GOOD), (1, SO_SO), (5, BAD),
        ),
        number(
            "Dead letters, 1 h", f"sum(client:notifier_dead_letters:increase1h{{{HERE}}})", "short",
            "Deliveries and events given up in the last hour.", (None, GOOD), (1, SO_SO), (100, BAD),
        ),
        number(
            "First certificate to run out",
            f"min(notifier_certificate_expiry_timestamp_seconds{{{HERE}}}) - time()", "s",
            "Of the API, the broker and the clients.", (None, BAD), (172_800, SO_SO), (1_209_600, GOOD),
        ),
    ]  # fmt: skip


def _traffic() -> list[Panel]:
    rate = "[$__rate_interval]"
    return [
        Panel(
            title="Events", kind="areas", unit="ops", text="Event messages that came to their end.",
            queries=[(f"sum by (result) (rate(notifier_events_total{{{HERE}}}{rate}))", "{{result}}")],
        ),
        Panel(
            title="Attempts by result", kind="areas", unit="ops", text="See `notifier explain REASON`.",
            read=BY_REASON,
            queries=[(f"sum by (reason) (rate(notifier_attempts_total{{{HERE}}}{rate}))", "{{reason}}")],
        ),
        Panel(
            title="Deferrals by cause", kind="areas", unit="ops", read="${__field.labels.cause}",
            text="Deferred without an attempt. See `notifier explain CAUSE`.",
            queries=[(f"sum by (cause) (rate(notifier_deferrals_total{{{HERE}}}{rate}))", "{{cause}}")],
        ),
        Panel(
            title="Deliveries settled", kind="areas", unit="ops", text="Their fate, and the retries on the way to it.",
            queries=[
                (f"sum by (fate) (rate(notifier_deliveries_settled_total{{{HERE}}}{rate}))", "{{fate}}"),
                (f"sum(rate(notifier_retries_scheduled_total{{{HERE}}}{rate}))", "retry scheduled"),
            ],
        ),
        Panel(
            title="Late logouts", kind="lines", unit="percentunit",
            text="More than 30 s from the session's end to the client, over three windows. The objective is under 1 %.",
            queries=[
                (f"max(job:notifier_logouts_late:ratio_{window}{{{HERE}}})", window) for window in ("5m", "1h", "6h")
            ],
        ),
        Panel(
            title="Tokens signed", kind="lines", unit="ops", text="One for each attempt.",
            queries=[(f"sum by (iss, alg) (rate(notifier_tokens_minted_total{{{HERE}}}{rate}))", "{{iss}} {{alg}}")],
        ),
    ]  # fmt: skip


def _latency() -> list[Panel]:
    rate = "[$__rate_interval]"
    buckets = f"sum by (le) (rate(notifier_propagation_seconds_bucket{{{CLIENT}}}{rate}))"
    signed = f"rate(notifier_signature_seconds_bucket{{{HERE}}}{rate})"
    return [
        Panel(
            title="From the session's end to the client", kind="heatmap", unit="s", width=12,
            queries=[(f"sum by (le) (increase(notifier_propagation_seconds_bucket{{{CLIENT}}}{rate}))", "{{le}}")],
        ),
        Panel(
            title="The same, by percentile", kind="lines", unit="s", width=6,
            queries=[(f"histogram_quantile({share}, {buckets})", f"p{share * 100:.0f}") for share in (0.5, 0.9, 0.99)],
        ),
        Panel(
            title="An attempt: what clients take to answer", kind="lines", unit="s", width=6,
            queries=[
                (
                    f"histogram_quantile({share}, sum by (le) (rate(notifier_attempt_seconds_bucket{{{HERE}}}{rate})))",
                    f"p{share * 100:.0f}",
                )
                for share in (0.5, 0.9, 0.99)
            ],
        ),
        Panel(
            title="A signature in an HSM or key service", kind="lines", unit="s", width=12,
            text="Nothing here if all keys are files.",
            queries=[
                (f"histogram_quantile({share}, sum by (signer, le) ({signed}))", f"{{{{signer}}}} p{share * 100:.0f}")
                for share in (0.5, 0.99)
            ],
        ),
        Panel(
            title="Signatures there, by result", kind="lines", unit="ops", width=12,
            queries=[
                (
                    f"sum by (signer, result) (rate(notifier_signatures_total{{{HERE}}}{rate}))",
                    "{{signer}} {{result}}",
                )
            ],
        ),
    ]  # fmt: skip


def _backlog() -> list[Panel]:
    lanes = 'queue=~"events|bulk|retries|source[.].+"'
    return [
        Panel(
            title="Ready in the queues", kind="lines", text="As the broker reports; messages at workers come on top.",
            queries=[(f"max by (queue) (notifier_queue_messages{{{HERE},{lanes}}})", "{{queue}}")],
        ),
        Panel(
            title="Held by workers, not settled", kind="lines",
            queries=[(f"sum by (queue) (notifier_queue_unsettled{{{HERE}}})", "{{queue}}")],
        ),
        Panel(
            title="Age of the oldest", kind="lines", unit="s",
            queries=[(f"max by (queue) (notifier_queue_oldest_seconds{{{HERE}}})", "{{queue}}")],
        ),
        Panel(
            title="Waiting for a later attempt", kind="lines", text="In the delay queues, and in the buckets.",
            queries=[
                (f'sum(max by (queue) (notifier_queue_messages{{{HERE},queue=~"delay.*"}}))', "delayed"),
                (f'max(notifier_queue_messages{{{HERE},queue="parked"}})', "parked"),
            ],
        ),
        Panel(
            title="Dead letters that lie there", kind="lines", text="Until an operator replays or discards them.",
            read="notifierdeadletterslie",
            queries=[(f'max(notifier_queue_messages{{{HERE},queue="dead"}})', "dead letters")],
        ),
        Panel(
            title="Consumers", kind="lines", text="As the broker reports: the consuming workers.",
            queries=[(f"max by (queue) (notifier_queue_consumers{{{HERE},{lanes}}})", "{{queue}}")],
        ),
    ]  # fmt: skip


def _since(name: str) -> str:
    """For how long each client has not been so."""
    return f"time() - max_over_time(client:notifier_{name}:timestamp{{{CLIENT}}}[1d])"


def _clients() -> list[Panel]:
    down = f"(client:notifier_circuit_state:max{{{CLIENT}}} > 0)"
    waits = f"(client:notifier_waiting_deliveries:sum{{{CLIENT}}} > 0)"
    by, rate = "iss, client_id", "[$__rate_interval]"
    attempts = f"client:notifier_attempts:rate5m{{{CLIENT}}}"
    buckets = f"rate(notifier_propagation_seconds_bucket{{{CLIENT}}}[5m])"
    delivered = f'client:notifier_settled:rate5m{{{CLIENT},fate="delivered"}}'
    recoveries = f"increase(notifier_recovery_seconds_bucket{{{HERE}}}[1h])"
    failed = f'client:notifier_attempts:rate5m{{{CLIENT},reason!="delivered"}}'
    left_out = "notifier_front_channel_left_out_total"
    asked = f"increase(notifier_front_channel_clients_total{{{CLIENT}}}[1h])"
    reached = f'increase(notifier_front_channel_clients_total{{{CLIENT},result="reached"}}[1h])'
    return [
        Panel(
            title="Clients that fail most", kind="table", unit="percentunit", width=12, read="notifierclientfailing",
            text="Share of the attempts of five minutes that did not deliver.",
            queries=[(f"sort_desc(topk(20, sum by ({by}) ({failed}) / sum by ({by}) ({attempts})))", "")],
        ),
        Panel(
            title="Dead letters of an hour", kind="table", width=12, read=BY_FIELD,
            text="By client and reason. See `notifier explain REASON`.",
            queries=[(f"sort_desc(topk(20, client:notifier_dead_letters:increase1h{{{CLIENT}}} > 0))", "")],
        ),
        Panel(
            title="Down since", kind="table", unit="s", read="notifierclientfailing",
            text="For how long each client has been down: a day at the most. `notifier status`: how long logouts live.",
            queries=[(f"sort_desc(topk(20, {_since('well')} and {down} or {down} * 0 + 86400))", "")],
        ),
        Panel(
            title="Oldest by client", kind="table", unit="s", read="notifierclientnotdrained",
            text="For how long something has waited for each client without a break, a day at the most: the oldest "
            "delivery is no older. `notifier waiting list` shows it exactly.",
            queries=[(f"sort_desc(topk(20, {_since('nothing_waits')} and {waits} or {waits} * 0 + 86400))", "")],
        ),
        Panel(
            title="Expires within the hour", kind="lines", read="notifierclientoutlived",
            text="Clients for which something that waits is given up within the hour, at the least. Without sid it "
            "lives for ten minutes only. `notifier status` names them.",
            queries=[(f"max by (sid) (notifier_clients_expiring{{{HERE}}})", "sid: {{sid}}")],
        ),
        Panel(
            title="Attempts of these clients", kind="areas", unit="ops", read=BY_REASON,
            queries=[(f"sum by (reason) (rate(notifier_attempts_total{{{CLIENT}}}{rate}))", "{{reason}}")],
        ),
        Panel(
            title="p99 by client: ended → logged out", kind="lines", unit="s",
            queries=[(f"topk(10, histogram_quantile(0.99, sum by ({by}, le) ({buckets})))", "{{client_id}}")],
        ),
        Panel(
            title="Logouts by client", kind="lines", unit="ops",
            queries=[(f"topk(10, sum by ({by}) ({delivered}))", "{{client_id}}")],
        ),
        Panel(
            title="Clients down", kind="states", width=24, text="0 closed, 1 half-open, 2 open.",
            read="notifierclientfailing",
            queries=[(f"topk(30, client:notifier_circuit_state:max{{{CLIENT}}})", "{{client_id}}")],
            steps=[(None, GOOD), (1, SO_SO), (2, BAD)],
        ),
        Panel(
            title="Waiting by client", kind="lines", width=12, text="Deliveries in memory and parked.",
            queries=[(f"topk(10, client:notifier_waiting_deliveries:sum{{{CLIENT}}})", "{{client_id}}")],
        ),
        Panel(
            title="Recovery → nothing parked any more", kind="lines", unit="s", width=12,
            text="Of all clients that were well again, in the hour before each moment.",
            queries=[
                (f"histogram_quantile({share}, sum by (le) ({recoveries}))", name)
                for share, name in ((0.5, "half of them"), (0.95, "95 %"))
            ],
        ),
        Panel(
            title="Front-channel pages", kind="lines", unit="ops", width=12,
            text="Pages, and their reports by how they ended. Pages that never report do not run.",
            queries=[
                (f"sum by (result) (rate(notifier_front_channel_pages_total{{{HERE}}}{rate}))", "{{result}}"),
                (f"sum by (result) (rate(notifier_front_channel_reports_total{{{HERE}}}{rate}))", "report: {{result}}"),
                (f"sum by (reason) (rate({left_out}{{{HERE}}}{rate}))", "left out: {{reason}}"),
            ],
        ),
        Panel(
            title="Clients that gave browsers no answer", kind="lines", unit="percentunit", width=12,
            text="Share of the pages of an hour. An answer does not prove a logout.",
            queries=[(f"topk(10, 1 - sum by ({by}) ({reached}) / sum by ({by}) ({asked}))", "{{client_id}}")],
        ),
    ]  # fmt: skip


def _dead_letters() -> list[Panel]:
    return [
        Panel(
            title="Dead letters by reason", kind="areas", width=12, read=BY_REASON,
            text="Of the hour before each moment. See `notifier explain REASON`.",
            queries=[(f"sum by (reason) (client:notifier_dead_letters:increase1h{{{HERE}}})", "{{reason}}")],
        ),
        Panel(
            title="Dead letters by client", kind="areas", width=12,
            queries=[(
                f"topk(10, sum by (iss, client_id) (client:notifier_dead_letters:increase1h{{{CLIENT}}}))",
                "{{client_id}}",
            )],
        ),
    ]  # fmt: skip


def _workers() -> list[Panel]:
    def by_worker(title: str, query: str, unit: str, text: str = "") -> Panel:
        return Panel(title=title, kind="lines", queries=[(query, "{{instance}}")], unit=unit, width=6, text=text)

    mine = f"and on (instance, job) notifier_build_info{{{HERE}}}"
    flags = ("ready", "queue_connected", "config_last_reload_success")
    return [
        by_worker("In flight", f"notifier_in_flight{{{HERE}}}", "short", "Attempts and settlements that run."),
        by_worker("CPU", f"rate(process_cpu_seconds_total{{{HERE}}}[$__rate_interval]) {mine}", "percentunit"),
        by_worker("Memory", f"process_resident_memory_bytes{{{HERE}}} {mine}", "bytes"),
        by_worker("Loop lag", f"notifier_loop_lag_seconds{{{HERE}}}", "s", "How late the event loop was at most."),
        by_worker("Open files", f"process_open_fds{{{HERE}}} {mine}", "short"),
        by_worker("Up since", f"time() - process_start_time_seconds{{{HERE}}} {mine}", "s"),
        Panel(
            title="Ready, connected, files in order", kind="states", width=6, steps=[(None, BAD), (1, GOOD)],
            queries=[(f"min(notifier_{name}{{{HERE}}})", name) for name in flags],
        ),
        Panel(
            title="What should be 0", kind="lines", width=6, text="Faults of ours, of the broker and of the registry.",
            queries=[
                (f"max(notifier_publishing_blocked{{{HERE}}})", "blocked"),
                (f"sum(increase(notifier_own_faults_total{{{HERE}}}[5m]))", "own faults"),
                (f"sum(increase(notifier_events_unheard_total{{{HERE}}}[5m]))", "events not heard"),
                (f"sum(increase(notifier_outcomes_dropped_total{{{HERE}}}[5m]))", "outcomes dropped"),
                (f"sum(1 - notifier_signing_key_published{{{HERE}}})", "keys not published"),
                (f'sum(increase(notifier_signatures_total{{{HERE},result!="ok"}}[5m])) or vector(0)', "not signed"),
                (f"sum(1 - notifier_registry_source_up{{{HERE}}}) or vector(0)", "registry sources not read"),
                (f"max(notifier_registry_clients_left_out{{{HERE}}})", "clients left out"),
            ],
        ),
    ]  # fmt: skip


_WORKER = f"and on (instance, job) notifier_build_info{{{HERE}}}"
MARKS = (
    Mark(
        name="Reloads", title="reload: {{instance}}", color="blue",
        query=f"notifier_config_last_reload_timestamp_seconds{{{HERE}}} * 1000",
    ),
    Mark(
        name="Deploys", title="start of {{instance}}", color="purple",
        query=f"process_start_time_seconds{{{HERE}}} * 1000 {_WORKER}",
    ),
    Mark(
        name="Clients down", title="{{client_id}} is down", color="red", by_value=False,
        query=f"client:notifier_circuit_state:max{{{CLIENT}}} > 0",
    ),
)  # fmt: skip
ROWS = (
    ("At a glance", _at_a_glance),
    ("Traffic", _traffic),
    ("Latency", _latency),
    ("Backlog", _backlog),
    ("Clients (choose them above)", _clients),
    ("Dead letters", _dead_letters),
    ("Workers", _workers),
)
