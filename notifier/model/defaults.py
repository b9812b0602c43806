"""Defaults of settings that other rooms use. The defaults of a client are in `client.py`."""

from collections.abc import Mapping

from notifier.model.message import Lane
from notifier.model.shared_resources import shared_bound

PREFETCH: Mapping[Lane, int] = shared_bound({Lane.EVENTS: 512, Lane.RETRIES: 256, Lane.BULK: 64})
MAX_IN_FLIGHT = shared_bound(512)
SLOT_WAIT = 1.0  # seconds that a delivery may wait in memory for its client
MAX_EVENT = 128 * 1024
SIGNATURE_TIMEOUT_SECONDS = 2.0  # for one signature of a key outside a file
MAX_LIST_BYTES = shared_bound(16 * 1024 * 1024)  # of one response of a registry source, unpacked, and of its rows
MAX_LIST_ROWS = shared_bound(200_000)  # of a registry source: about 200 MiB with their clients
BUCKETS = shared_bound(64)
MOST_BUCKETS = 1024
