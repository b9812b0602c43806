"""RabbitMQ as the queue: 3.10 to 4.x, quorum queues, publisher confirms, two connections.

`options` says where and how; `queue` is the port; `administration` declares, verifies, shows and deletes the topology.
"""
