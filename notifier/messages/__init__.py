"""Takes messages from the queue, starts their deliveries as there is room, and acks them once all are settled.

A worker is one process with one event loop. This room is about messages: which is read next, what it contains, and when
it is acked. `notifier/delivery`, the room below, is about one delivery: it admits, attempts, decides and settles. It
knows of a message only what `MessageOfDelivery` declares (`notifier/delivery/ports.py`), and `HeldMessage` satisfies.

**The order** is in `Worker._start_next_step`. A message takes three steps there, and a fourth when it is finished:

1. *Read.* `Worker.take` receives a message, and holds it unacked. `Selection` chooses the message to read next: fresh
   events before retries, retries before bulk. `MessagePlanner` parses it, and returns its plan.
2. *Plan.* The plan of an event has one delivery for each client that the event names (`event_clients.py`), without
   duplicates. Deliveries are made one by one, as there is room: an event of 20,000 clients is never whole in memory.
   Or the plan is a `Replacement`: other messages replace this one (`replacements.py`).
3. *Start.* `Ledger` counts the delivery, and recognises a copy of one that is in flight or was delivered. All others
   start in `DeliveryPipeline`.
4. *Ack.* Each delivery is settled once its client is notified, or once its retry, deferral or dead letter is durable.
   `Ledger` acks the message when it has no step left and each step is settled. A crash before that repeats work and
   loses none.

**A replacement** is made durable before the message is acked. An unreadable message, and an event whose publisher has
no permission, are replaced by a dead letter. An event of an unknown issuer is postponed. An event of more than a
hundred clients is split into parts. A message that was redelivered three times or more is *suspect*, since reading or
attempting it may crash the process: it is replaced by *trials*, a message for each of its deliveries, which count their
crashes separately (`selection.py`).

**What a message can hold.** The queue bounds how many messages a worker holds (prefetch). Each takes part in the choice
by its lane, and an event gets ten deliveries in a row at most, so that a large event does not delay a small one. Large
messages are read one at a time. A delivery in memory takes room (`Slots`); if memory is full, the deliveries that would
wait longest are deferred to a queue, so that the message of a healthy client finds room.

**Two events end the order early.** If a queue is lost, its unstarted messages are forgotten, since the broker
redelivers them; running deliveries continue, and a redelivered copy waits for their result. If the worker stops, it
takes no more messages, returns those that were not started, and drains: deliveries in flight end within
`shutdown_grace`."""
