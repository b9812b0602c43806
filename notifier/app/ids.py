"""Makes the ids that are ours: of tokens, and of events that came without one."""

import uuid


def new_id() -> str:
    """A fresh UUID."""
    return str(uuid.uuid4())
