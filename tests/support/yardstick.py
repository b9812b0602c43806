"""How fast this machine is now: limits in seconds are set on one machine and held on others, and on slow days too."""

import json
import time

WORK = json.dumps([{"client_id": f"c{index}", "sub": "x" * (index % 7)} for index in range(8000)]).encode()
USUAL = 0.010  # seconds of the processor's time that the work takes where limits are set


def work() -> float:
    """Do a piece of work of the kind that the service does: seconds of the processor's time that it took."""
    began = time.process_time()
    for entry in json.loads(WORK):
        name = entry["client_id"].lower()
        entry["key"] = (name, f"{name}/{entry['sub']}", name.isprintable())
    return time.process_time() - began


def slowness(tries: int = 5) -> float:
    """How many times as long as usual the work takes now, at its best of so many tries: 1 where it takes less."""
    return max(1.0, min(work() for _ in range(tries)) / USUAL)
