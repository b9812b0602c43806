"""The embedded queue: the same port as RabbitMQ's on one SQLite file, for one worker and the command line beside it.

`queue` is the face towards the event loop, `writer` the one thread that does all SQLite work in group commits,
`store` the SQL (the only importer of sqlite3), `lock` keeps a second worker out.
"""

from notifier.adapters.sqlite_queue.queue import SqliteQueue
from notifier.adapters.sqlite_queue.writer import SqliteOptions

__all__ = ["SqliteOptions", "SqliteQueue"]
