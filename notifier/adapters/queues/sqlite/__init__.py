"""The embedded queue: the same port as RabbitMQ's on one SQLite file, for one worker and the command line beside it.

`queue` is the face towards the event loop, `writer` the one thread that does all SQLite work in group commits,
`store` the SQL, `file` opens and judges what is on disk (the only importers of sqlite3), `lock` keeps a second worker
out, `handover` is what the loop and the thread hand each other.
"""

from notifier.adapters.queues.sqlite.queue import SqliteQueue
from notifier.adapters.queues.sqlite.writer import SqliteOptions

__all__ = ["SqliteOptions", "SqliteQueue"]
