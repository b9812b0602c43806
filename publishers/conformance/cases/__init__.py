"""The cases, in the order in which they run: few starts of the publisher, and what it logged is looked through last.

A module `test_NAME.py` beside this folder names its publisher and takes them all.
"""

# isort: off
from publishers.conformance.cases.confirms import *  # noqa: F403
from publishers.conformance.cases.lanes import *  # noqa: F403
from publishers.conformance.cases.broker_faults import *  # noqa: F403
from publishers.conformance.cases.kills import *  # noqa: F403
from publishers.conformance.cases.limits import *  # noqa: F403
from publishers.conformance.cases.local_attacker import *  # noqa: F403
from publishers.conformance.cases.tls import *  # noqa: F403
from publishers.conformance.cases.http import *  # noqa: F403
from publishers.conformance.cases.events import *  # noqa: F403
from publishers.conformance.cases.secrets import *  # noqa: F403
