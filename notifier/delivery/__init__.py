"""Notifies one client about one event: admits the delivery, attempts it, decides what follows, and settles that.

Nothing here imports a queue's adapter, a key or HTTP: the ports of `ports.py` lead outside, and `notifier/service`
connects them. Where deliveries come from is described in `notifier/messages`, the room above. Each decision is a
synchronous function; only tasks wait.

**The order** is in `DeliveryPipeline._run`. The `Delivery` is the task, made from the event. Its `Progress` records its
history and how it waits, with a method for each event.

1. *Admit.* `admission.py` returns a verdict where no attempt is needed: the delivery has expired, or its client is
   unknown or registered with `paused: true`. Otherwise `ClientState.admit` returns that the delivery starts, waits in
   memory, or how it is deferred. `Scheduler` carries it out, and returns an `AdmittedDelivery` or a deferral.
2. *Attempt.* The client's channel (`channels.py`) makes a logout token, new for each attempt. The answer becomes an
   *outcome*: delivered, refused or failed. `AttemptReport` adds its *signal*, the evidence about the client.
3. *Decide.* The client's state takes the report first (`Scheduler.on_ended`). `Deferrals.decide_verdict` asks it for
   the *standing*: whether the client is available, and how a delivery waits for it. From report and standing, `decide`
   of `verdict.py` returns the *verdict* once: done, a retry, a deferral or a dead letter. Nothing changes it later.
4. *Settle.* `Settlement` publishes the retry, deferral or dead letter, and waits for the queue's confirm. Then the
   message of the delivery takes note, and facts are reported to observers: logs, metrics, traces, notices.

**One client.** A worker stores what it knows of a client in one `ClientState` in memory, and starts without any. Other
modules call its methods, and none writes a member. It has four parts:

- `Circuit`: are attempts likely to succeed? Untried until the first result, closed while attempts run, open while they
  fail, then half-open for one delivery, the *probe*, whose success closes it. Failures take from a budget that
  successes fill. Workers report openings and recoveries to each other, without a guarantee.
- `AttemptRate`: how many attempts a second? As registered, or as detected if the client is overloaded.
- `Line`: which deliveries wait in memory for a *slot*, the permission for one running attempt? Slots are shared by all
  clients, in three pools (`slots.py`), so that slow clients and probes do not delay others.
- `Parking`: how do deliveries wait while the client is unavailable, since its circuit is open or it requested a pause?

**Where a pending delivery waits.** Its message in memory is unacked; all other places are queues, so that any worker
continues after a crash. No database is needed ([decision](../../docs/decisions/no-database.md)).

- *In the line:* for a second or two, less as memory fills, until the client has a slot and its rate allows an attempt.
- *In delay queues:* retries; deferrals whose slot is further away, or for `paused: true`, an unknown client or an
  internal fault; and the probe of an unavailable client. The delay of a queue is fixed, 1 s to 65,536 s.
- *Parked in a bucket:* all other deliveries of an unavailable client, while its probe is in a delay queue. A worker
  that sees the client recover fetches them (`fetches.py`). After each fourth failure of the probe, another delivery
  takes its place (`deferrals.py`). A message that nobody fetches becomes a retry after 1,024 s.
- *As dead letters:* deliveries that were refused or expired, until an operator replays or discards them.

`notifier/model/ages.py` bounds how long a delivery may be pending.
"""
