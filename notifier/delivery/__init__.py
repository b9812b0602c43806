"""Notifies one client about one event: admits the delivery, attempts it, decides what follows, and settles that.

Nothing here imports a queue's adapter, a key or HTTP: the ports of `ports.py` and `queue_port.py` lead outside, and
`notifier/service` connects them. Where deliveries come from is described in `notifier/messages`, the folder above. Each
decision is a synchronous function; only asyncio's tasks wait.

**The order** is in `DeliveryPipeline._run`. The `Delivery` is what is to be done, made from the event. Its `Progress`
records its history and how it waits, with a method for each change.

1. *Admit.* `admission.py` returns a verdict where no attempt is needed: the delivery has expired, or its client is
   unknown or registered with `paused: true`. Otherwise `ClientState.admit` returns that the delivery starts, waits in
   memory, or how it is deferred. `Scheduler` carries it out, and returns an `AdmittedDelivery` or a deferral.
2. *Attempt.* The client's channel (`channels.py`) makes a logout token, new for each attempt. The answer becomes an
   *outcome*: delivered, refused or failed. Its *signal* is the evidence about the client. An `AttemptReport` has both,
   and the delivery before and after the attempt.
3. *Decide.* The client's state takes the report first (`Scheduler.on_ended`). Unless the attempt succeeded,
   `Deferrals.decide_verdict` makes the *standing*: whether the client is available, and how a delivery waits for it.
   From report and standing, `decide` of `verdict.py` returns the *verdict*, once: a retry, a deferral or a dead letter.
4. *Settle.* `Settlement` publishes the retry, deferral or dead letter, and waits for the queue's confirm. Then
   `MessageOfDelivery` takes note. If a deferral becomes due before its confirm, the delivery is admitted again.

Facts are reported to observers (logs, metrics, traces, notices): an attempt when it ends, all else once it is durable.

**One client.** A worker stores what it knows of a client in one `ClientState` in memory, and starts without any. Other
modules call its methods, and none writes a member. It has four parts:

- `Circuit`: are attempts likely to succeed? Untried until the first result, closed while attempts run, open while they
  fail, then half-open for one delivery, the *probe*, whose success closes it. (A fresh delivery may be tried earlier.)
  Failures take from a budget that successes fill. Workers report openings and recoveries to each other, without a
  guarantee.
- `AttemptRate`: how many attempts a second? As registered, or as detected if the client is overloaded.
- `Line`: which deliveries wait in memory for a *slot*, the permission for one running attempt? Slots are shared by all
  clients, in three pools (`slots.py`), so that slow clients and probes do not delay others. If others need the slots of
  clients that hang, their attempts end early (`Scheduler.attempts_to_end`). If the processor has no time for all
  probes, circuits stay open longer, and fresh deliveries are no probes (`Slots.yielding_seconds`).
- `Parking`: how do deliveries wait while the client is unavailable, since its circuit is open or it requested a pause?

The workers divide a client's registered rate and concurrency limit among them, without messages about clients. Until a
worker that starts knows how many there are, it takes the smallest share.

**Where a pending delivery waits.** Its message in memory is unacked; all other places are queues, so that any worker
continues after a crash. No database is needed ([decision](../../docs/decisions/no-database.md)).

- *In the line:* for a second or two, less as memory fills, until the client has a slot and its rate allows an attempt.
- *In delay queues:* retries; deferrals whose slot is further away, or for `paused: true`, an unknown client or an
  internal fault; the probe of an unavailable client; and deliveries whose bucket takes nothing. The delay of a queue is
  fixed, 1 s to 65,536 s. If a queue takes nothing, they wait as long in others.
- *Parked in a bucket:* other deliveries of an unavailable client, while its probe is in a delay queue; unless they
  expire soon, or the worker stops. A worker that sees the client recover fetches them (`fetches.py`). When the attempts
  of the probe reach a multiple of four, another delivery takes its place (`deferrals.py`). A message that nobody
  fetches moves to the lane `retries` after 1,024 s. A client with 1,000 parked deliveries has a second bucket for
  further ones, so that they do not delay other clients.
- *As dead letters:* deliveries that were refused, have expired or can never be sent, until an operator replays or
  discards them.

`notifier/model/ages.py` bounds how long a delivery may be pending.
"""
