"""RabbitMQ as the queue: 3.10 to 4.x, quorum queues, publisher confirms, two connections.

Open `queue` first: it implements the port. `options` has address and limits; `administration` manages the topology.
"""
