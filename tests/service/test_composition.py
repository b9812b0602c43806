"""The service is composed without cycles."""

import ast
import inspect
import json
from pathlib import Path
from weakref import ref

from notifier.configuration.live_configuration import LiveConfiguration
from notifier.configuration.loading import load
from notifier.features import FEATURES
from notifier.service.service import Service
from tests.tokens.key_folder import ISS, pem


def test_parts_are_created_after_their_dependencies() -> None:
    """No lambda reads an attribute of the service, none is assigned after `__init__`, which has 50 lines at most.

    Nor is an attribute of another object assigned anywhere.
    """
    [service] = ast.parse(inspect.getsource(Service)).body
    assert isinstance(service, ast.ClassDef)
    methods = {
        method.name: method for method in service.body if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    init = methods.pop("__init__")
    assert (init.end_lineno or 0) - init.lineno < 50
    late = [name for method in methods.values() for node in ast.walk(method) if (name := _of_self(node, ast.Store))]
    lambdas = [node for node in ast.walk(service) if isinstance(node, ast.Lambda)]
    read = [name for each in lambdas for node in ast.walk(each) if (name := _of_self(node, ast.Load))]
    foreign = [
        ast.unparse(node)
        for node in ast.walk(service)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and not _of_self(node, ast.Store)
    ]
    assert (late, read, foreign) == ([], [], [])


def _of_self(node: ast.AST, context: type[ast.expr_context]) -> str:
    """Return the name of the attribute of `self` that the node loads or stores, if it does."""
    if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, context):
        return ""
    return node.attr if isinstance(node.value, ast.Name) and node.value.id == "self" else ""


def test_a_reload_frees_the_former_clients(tmp_path: Path) -> None:
    """Nothing that the service computes from a registry keeps it: 200,000 clients take 77 MiB."""
    (tmp_path / "key.pem").write_bytes(pem("RS256"))
    (tmp_path / "clients.json").write_text(
        json.dumps([{"client_id": "shop", "backchannel_logout_uri": "https://s.ex/"}])
    )
    path = tmp_path / "notifier.json"
    document = {"issuers": {ISS: {"keys": [{"file": "key.pem"}]}}, "registry": {"file": "clients.json"}}
    path.write_text(json.dumps({**document, "queue": {"url": f"sqlite:{tmp_path / 'q.db'}"}}))
    live = LiveConfiguration(path, {}, load(path, {}, FEATURES))
    service = Service(live, features=FEATURES)
    service.metrics.clients.of(ISS, "shop")
    former = ref(live.registry())
    assert live.reload(requested=True)
    assert former() is None
