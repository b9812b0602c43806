"""The measured costs that `notifier capacity` computes with. `make bench-plot` writes this file."""

TAKEN = "2026-11-21 on AMD EPYC, 2 cores, Python 3.11.7"

# µs of one core that a worker uses for a delivery, by algorithm and clients an event; RabbitMQ, plain http.
DELIVERY = {
    ("ES256", 1): 160.2,
    ("ES256", 10): 121.0,
    ("RS256", 1): 366.7,
    ("RS256", 10): 323.7,
}

# µs of one core that RabbitMQ uses for an event: published and confirmed, given out and acknowledged.
BROKER_EVENT = 80.5

# MiB that a worker had in memory at most.
MEMORY = 84.2
