"""What was measured, for `notifier capacity`. Written by `make bench-plot`, not by hand."""

TAKEN = "2026-11-20 on AMD EPYC, 2 cores, Python 3.11.7"

# µs of one core that a worker uses for a delivery, by algorithm and clients an event; RabbitMQ, plain http.
DELIVERY = {
    ("ES256", 1): 211.1,
    ("ES256", 10): 169.6,
    ("RS256", 1): 387.9,
    ("RS256", 10): 364.8,
}

# µs of one core that RabbitMQ uses for an event: published and confirmed, given out and acknowledged.
BROKER_EVENT = 92.0

# MiB that a worker had in memory at most.
MEMORY = 84.6
