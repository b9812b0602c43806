"""Lists all commands, in the order in which `notifier --help` shows them. The help of each begins with this line."""

from notifier.features import FEATURES
from notifier.operators.terminal.help import LazyCommand

COMMANDS = (
    LazyCommand("run", "notifier.service.run_command",
        "Run a worker: take events from the queue and deliver their logouts, until SIGTERM or SIGINT."),
    LazyCommand("demo", "notifier.demo.demo_command",
        "Show notifier at work: no broker, no configuration, less than 30 seconds."),
    LazyCommand("publish", "notifier.publishing.publish_command",
        "Publish events from a file or stdin, and wait until the queue has confirmed each."),
    LazyCommand("reload", "notifier.operators.status.reload_command",
        "Have all workers read their configuration and their registry sources now, and show what each did."),
    LazyCommand("check", "notifier.cli.check_command",
        "List every mistake of a configuration, or sum it up if there is none."),
    LazyCommand("doctor", "notifier.service.doctor_command",
        "Check everything that a logout depends on, and say what to do about each problem."),
    LazyCommand("explain", "notifier.operators.doctor.explain_command",
        "Explain a reason, cause, alert, state or setting: what it means, what to do, how to see that it is over."),
    LazyCommand("schema", "notifier.cli.schema_command",
        "Print the JSON Schema (2020-12) of a document that notifier reads, or of the outcomes that it writes."),
    LazyCommand("status", "notifier.operators.status.status_command",
        "Show what waits in the queues, the rates, and the state of workers and clients."),
    LazyCommand("retry", "notifier.operators.letters.retry_command",
        "Attempt the pending deliveries of a client now, instead of when they are due."),
    LazyCommand("log-id", "notifier.cli.log_id_command",
        "Print the hash under which logs show a `sub` or `sid`; with --in, show what became of that user's logouts."),
    LazyCommand("clients", "notifier.cli.clients_command",
        "Show the clients that are in force, and where each value of them comes from."),
    LazyCommand("keys", "notifier.cli.keys_command",
        "Make signing keys and keys of pages, and print what the issuer must publish."),
    LazyCommand("topology", "notifier.cli.topology_command",
        "Show, declare or delete the queues and exchanges on RabbitMQ."),
    LazyCommand("waiting", "notifier.operators.letters.waiting_command",
        "List, show or cancel deliveries that wait for their next attempt."),
    LazyCommand("dead-letters", "notifier.operators.letters.dead_letters_command",
        "List, show, export, replay or discard deliveries that were given up and messages that could not be read."),
    *(LazyCommand(*command) for feature in FEATURES for command in feature.commands),
)  # fmt: skip

GONE = {
    "demo --browser": "is gone: use `notifier demo` or `notifier demo --console`",
    "capacity": "is gone: the tables of docs/scaling.md show the number of workers",
    "report": "is gone: the SQL query and the PromQL of docs/outcomes.md show shares and times by client",
    "collect": "is gone: bind a queue to <prefix>.outcomes; its file is read by the SQL of docs/outcomes.md",
    **dict.fromkeys(("clients --issuer", "doctor --issuer", "keys --issuer"), "is gone: use --iss"),
}
"""Removed commands and options, with what to use instead. They exit with 2."""
