"""The embedded queue: the same port as RabbitMQ's on one SQLite file, for one worker and the command line beside it.

`queue` is the face towards the event loop, `writer` the one thread that does all SQLite work in group commits,
`lanes` and `parked_rows` what that thread remembers, `store` the SQL, `rows` what the rows hold, `file` opens and
judges what is on disk, `lock` keeps a second worker out, `handover` is what the loop and the thread hand each other.
"""

from notifier.queues.sqlite.options import SqliteOptions
from notifier.queues.sqlite.queue import SqliteQueue

__all__ = ["SqliteOptions", "SqliteQueue"]
