"""Who writes what: the state of a client has one owner."""

import ast
from dataclasses import fields
from pathlib import Path

from notifier.delivery.circuit import Circuit
from notifier.delivery.client_state import ClientState
from notifier.delivery.line_and_parking import Line, Parking, ProbeRotation
from notifier.delivery.rate import AttemptRate

PARTS = (ClientState, Circuit, AttemptRate, Line, Parking, ProbeRotation)


def test_only_its_own_methods_write_a_member_of_a_client() -> None:
    """Not even the state writes a member of its parts: each event has a method."""
    members = {field.name for part in PARTS for field in fields(part)}
    writes = [
        f"{path.name}:{node.lineno} {ast.unparse(node)}"
        for room in ("delivery", "messages")
        for path in Path("notifier", room).glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr in members
        if ast.unparse(node.value) != "self"
    ]
    assert not writes
