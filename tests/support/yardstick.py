"""Measures this machine's current speed, because limits in seconds are set on one machine and checked on others."""

import json
import time

WORK = json.dumps([{"client_id": f"c{index}", "sub": "x" * (index % 7)} for index in range(8000)]).encode()
USUAL = 0.010  # CPU seconds of the work on the machine where limits are set


def work() -> float:
    """Do work of the service's kind and return its CPU seconds."""
    began = time.process_time()
    for entry in json.loads(WORK):
        name = entry["client_id"].lower()
        entry["key"] = (name, f"{name}/{entry['sub']}", name.isprintable())
    return time.process_time() - began


def slowness(tries: int = 5) -> float:
    """Return how many times slower than usual the work is, at the best of so many tries; at least 1."""
    return max(1.0, min(work() for _ in range(tries)) / USUAL)
