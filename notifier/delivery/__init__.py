"""Delivers events to clients: reads a message, makes a delivery for each client, attempts it, and settles the result.

Nothing here imports a queue, a key or HTTP: the ports of `ports.py` lead outside, and `notifier/service` connects them.
A worker is one process with one event loop. Each decision is a synchronous function; only tasks wait.

**The pipeline.** A message takes three steps, in `Worker._start_next_step`:

1. *Read.* `selection.py` chooses the message, and `intake.py` parses it. Other messages replace an unreadable message,
   an event of an unknown issuer and an event of many clients (`replacements.py`): a dead letter, a deferral, parts.
2. *Plan.* An event becomes deliveries, one for each client that it names, made one by one as there is room.
3. *Start.* `ledger.py` notes the delivery, and recognises a copy of one in flight or delivered.

A delivery takes four, in `DeliveryPipeline._run`. Its `Delivery` is the task, made from the event. Its `Progress`
records its history and how it waits, with a method for each event:

1. *Admit.* `admission.py` returns a verdict where no attempt is needed: the delivery has expired, or its client is
   unknown or registered with `paused: true`. Otherwise `ClientState.admit` returns whether the delivery starts, waits
   in memory, or is deferred, and `Scheduler` carries it out.
2. *Attempt.* The client's channel (`channels.py`) makes a logout token, new for each attempt, and reads the answer.
3. *Decide.* The outcome is delivered, refused or failed. The client's state takes it first, and returns how the client
   stands. From both, `decide` of `verdict.py` returns the verdict (done, a retry, a deferral or a dead letter) and the
   delivery as it is afterwards. Nothing changes the verdict later. A retry follows after a backoff, which grows only if
   the client has accepted another delivery meanwhile; while the circuit is open, the delivery is pending until it is
   half-open. `ages.py` bounds how long a delivery may be pending.
4. *Settle.* `settlement.py` publishes the retry, deferral or dead letter and waits for the confirm of the queue.

The ledger acks a message once each of its deliveries is settled. A crash before that repeats work and loses none.

Four values describe the result. The *outcome* belongs to the attempt; an `AttemptReport` contains it with the delivery
before and after the attempt, and its *signal* counts for the client's circuit and rate. The *verdict* belongs to the
delivery. A *fact* is for observers: logs, metrics, traces. A *notice* is made from a fact, for the publisher and the
feed.

**One client.** A worker stores the state of a client in one object in memory, a `ClientState`: the circuit, the rate, a
requested pause, and where its pending deliveries are. Other modules call its methods, and none writes a member. A new
worker starts without it.

**The circuit** (`circuit.py`) is untried until the client has answered or failed once; until then attempts are made one
at a time. While it is closed, attempts run as they come. Each success adds four failures to a budget of 32 at most,
each failure takes one. If none is left, or if all attempts have failed for ten seconds, the circuit opens. It stays
open for half of the outage so far, 1 to 64 s, and is then half-open: one delivery, the *probe*, is attempted. Its
success closes the circuit, its failure opens it for longer. The probe is marked in its message (`probe_due`);
`ClientState.can_start` decides when it runs. Before that a *fresh* delivery, which no worker has deferred or attempted
yet, may be attempted, 4 s after the last attempt, while more than half of the slots for probes are free: its success
closes the circuit, too, and its failure changes nothing. Workers report openings and recoveries to each other without a
guarantee (`worker_news.py`). A pause that the client requests (`Retry-After` with 429 or 503) is kept beside the
circuit: no attempt starts before its end, and deliveries wait as they do while the circuit is open.

**The rate.** An attempt starts only if the client is below its concurrency limit, which grows with each success and is
halved when the circuit opens, if its registered rate allows it, and if the worker has a free slot (`gate.py`). Slow
clients and probes use separate slots, so that they do not delay other clients. The time of an attempt is that of the
request, without signing. Where many attempts of less than a second fail although the circuit is closed, the client may
be overloaded. If most of them have a status below 500, such as 429, the worker limits the rate at once. Otherwise it
tries a lower rate, then no limit, and limits the rate if far fewer attempts failed meanwhile and many fail again
(`rate.py`).

**Where pending deliveries are kept.** The message of a delivery in memory is unacked. All other places are queues, so
that any worker continues after a crash.

- *In memory:* for a second or two, less as memory fills, until the client has a slot and its rate allows an attempt.
  At most twice `max_in_flight` deliveries exist in a worker, beside attempts at slow clients and probes.
- *In delay queues:* retries; deferrals whose turn is further away, or for `paused: true`, an unknown client or an
  internal fault; and the probe of a client whose circuit is open or that requested a pause. A delay queue has one fixed
  delay, 1 s to 65,536 s, and then returns the message to the lane `retries`.
- *Parked in a bucket:* all other deliveries of a client whose circuit is open or that requested a pause, while a probe
  of this worker is in a delay queue (`pending.py`). A worker that sees a client recover fetches them (`pulls.py`).
  After every fourth failed attempt of the probe, a parked delivery becomes a probe, too; once it is durable in a delay
  queue, the former probe is parked at its next failure (`client_buckets.py`). A message that is not fetched returns to
  `retries` after 1,024 s. A delivery that expires within a minute is not parked, and a worker that stops parks none.
- *As dead letters:* deliveries that were refused or expired, and messages that could not be read, until an operator
  replays or discards them.
"""
