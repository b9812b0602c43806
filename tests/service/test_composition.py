"""The service is composed without cycles."""

import ast
import inspect

from notifier.service.service import Service


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
