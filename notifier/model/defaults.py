"""Defaults of settings that other rooms use. The defaults of a client are in `client.py`."""

from collections.abc import Mapping

from notifier.model.message import Lane

PREFETCH: Mapping[Lane, int] = {Lane.EVENTS: 512, Lane.RETRIES: 256, Lane.BULK: 64}
MAX_IN_FLIGHT = 512
SLOT_WAIT = 1.0  # seconds that a delivery may wait in memory for its client
MAX_EVENT = 128 * 1024
SIGNATURE_TIMEOUT_SECONDS = 2.0  # for one signature of a key outside a file
MAX_LIST_BYTES = 16 * 1024 * 1024  # of one response of a registry source, unpacked, and of the rows of a source
MAX_LIST_ROWS = 200_000  # of a registry source: about 200 MiB with their clients
BUCKETS = 64
MOST_BUCKETS = 1024
