"""The embedded queue: the queue port on one SQLite file, for one worker and the command line on the same machine.

`queue` is the side of the event loop: read it first. `writer` is the thread that does all SQLite work in group commits;
`lanes` has its state. `store` has the SQL; `rows` has the contents of rows, and the operations and reports that thread
and loop exchange. `file` opens and checks the file, and `lock` prevents a second worker.
"""

from notifier.queues.sqlite.options import SqliteOptions
from notifier.queues.sqlite.queue import SqliteQueue

__all__ = ["SqliteOptions", "SqliteQueue"]
