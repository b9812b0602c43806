"""The embedded queue: the same port as RabbitMQ's on one SQLite file, for one worker and the command line beside it.

`queue` faces the event loop. `writer` is the one thread that does all SQLite work, in group commits, and `lanes` holds
the state of that thread. `store` has the SQL, `rows` the content of rows and the operations and reports that the thread
and the loop exchange. `file` opens and checks the file, and `lock` keeps a second worker out.
"""

from notifier.queues.sqlite.options import SqliteOptions
from notifier.queues.sqlite.queue import SqliteQueue

__all__ = ["SqliteOptions", "SqliteQueue"]
