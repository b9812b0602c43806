"""Takes messages from the queue, starts their deliveries as there is room, and acks them once all are settled.

A worker is one process with one event loop. This folder is about messages: which is read next, what it contains, and
when it is acked. `notifier/delivery`, the folder below, is about one delivery: it admits, attempts, decides and
settles. It uses a message only by `MessageOfDelivery` (`notifier/delivery/ports.py`), which `HeldMessage` satisfies.

**The order** of a message has four phases. The second to fourth are in `Worker._start_next_step`.

1. *Choose.* `Worker.take` receives a message, and holds it unacked. `Selection` chooses the message whose next delivery
   starts: fresh events before retries, retries before bulk; a lane that was passed over nine times comes next. Messages
   for clients that are down *yield*: they come after those for others.
2. *Read.* `MessagePlanner` parses the message and returns its plan. That of an event has one delivery for each client
   that the event names (`event_clients.py`), without duplicates. Deliveries are made one by one, as there is memory: an
   event of 20,000 clients is never whole in memory. The plan of a retry is one delivery. Or the plan is a
   `Replacement`: other messages take the place of this one (`replacements.py`).
3. *Start.* `Ledger` counts the delivery, and recognises a *copy* of one that is in flight, was delivered, or has a
   retry pending, so that it is settled with the original. Every other delivery starts in `DeliveryPipeline`.
4. *Ack.* A delivery is settled once its client is notified, or once its retry, deferral or dead letter is durable. The
   `Ledger` acks the message when nothing of its plan is left and all of it is settled. A crash before that repeats work
   and loses none.

**A replacement** is made durable before the message is acked. An unreadable message, and an event whose publisher has
no permission, are replaced by a dead letter. An event of an unknown issuer is postponed. An event of more than a
hundred clients is split into parts. A message that was redelivered three times or more, without a loss of connection as
the reason, is *suspect*, since reading or attempting it may crash the process: it is replaced by *trials*, a message
for each of its deliveries, which count their crashes separately (`selection.py`).

**What a message can hold.** The prefetch of its lane bounds how many messages a worker holds; up to 256 messages that
are being fetched come beside them. A *late* message, whose deliveries all started over half a second ago, is set aside:
it stays unacked but does not use the prefetch, so that clients that hang do not delay other events; so are messages
that yield, if they are many. After ten deliveries an event gets its next ones while no small event waits, or each tenth
delivery, so that large events do not delay small ones. Large messages are read one at a time. Deliveries in memory are
bounded, too (`Slots`); if memory is full, deliveries with distant slots are deferred to a queue, so that deliveries of
other clients find memory.

**Two events end the order early.** If the connection to a queue is lost, its unstarted messages are forgotten, since
the broker redelivers them; running deliveries continue, and a redelivered copy waits for their result. If the worker
stops, it takes no more messages, returns those that were not started, and drains: deliveries in flight end within
`shutdown_grace`, and what is left then is cancelled and redelivered.
"""
