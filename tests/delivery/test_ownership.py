"""Who writes what: the state of a client has one owner."""

import ast
from dataclasses import fields
from pathlib import Path

from notifier.delivery.circuit import Circuit
from notifier.delivery.client_state import ClientState
from notifier.delivery.rate import AttemptRate

OWNERS = {"circuit.py", "known_client.py", "pending.py", "rate.py"}


def test_no_other_module_writes_a_member_of_a_client() -> None:
    """Each event has a method: the order of the changes is in one place."""
    members = {field.name for kind in (AttemptRate, Circuit, ClientState) for field in fields(kind)}
    writes = [
        f"{path.name}:{node.lineno} {ast.unparse(node)}"
        for path in Path("notifier/delivery").glob("*.py")
        if path.name not in OWNERS
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr in members
        if ast.unparse(node.value) != "self"
    ]
    assert not writes
