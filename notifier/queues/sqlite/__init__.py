"""The embedded queue: the port of RabbitMQ's queue on one SQLite file, for one worker and the command line beside it.

`queue` serves the event loop: read it first. `writer` is the single thread that does all SQLite work in group commits;
`lanes` holds that thread's state. `store` has the SQL, `rows` the contents of rows, and the operations and reports that
thread and loop exchange. `file` opens and checks the file, and `lock` prevents a second worker.
"""

from notifier.queues.sqlite.options import SqliteOptions
from notifier.queues.sqlite.queue import SqliteQueue

__all__ = ["SqliteOptions", "SqliteQueue"]
