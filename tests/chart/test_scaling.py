"""A scaler takes over the workers that run, and puts none of them down."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import yaml

from tools.chart_rendering import template, values_file

GROUP = {"groupVersion": "apps/v1", "version": "v1"}
KIND = {"name": "deployments", "singularName": "deployment", "namespaced": True, "kind": "Deployment", "verbs": ["get"]}
DISCOVERY: dict[str, dict[str, Any]] = {
    "/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.0"},
    "/api": {"kind": "APIVersions", "versions": []},
    "/apis": {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [{"name": "apps", "versions": [GROUP], "preferredVersion": GROUP}],
    },
    "/apis/apps/v1": {"kind": "APIResourceList", "groupVersion": "apps/v1", "resources": [KIND]},
}


@contextmanager
def api_server(replicas: int | None) -> Iterator[str]:
    """As much of an API server as a look-up of the Deployment asks, which has so many replicas or is not there."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            found = DISCOVERY.get(path)
            if replicas is not None and path == "/apis/apps/v1/namespaces/logout/deployments/n-notifier":
                found = {"kind": "Deployment", "apiVersion": "apps/v1", "spec": {"replicas": replicas}}
            missing = {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}
            body = json.dumps(found or missing).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("kind", ["hpa", "keda"])
@pytest.mark.parametrize(("running", "replicas"), [(4, 4), (0, 0), (None, None)])
def test_as_many_workers_go_on_as_run(kind: str, running: int | None, replicas: int | None) -> None:
    """Left out, Helm 3 goes down to one until the scaler has looked. Before an install nothing runs."""
    with api_server(running) as url:
        run = template(values_file(kind), "--dry-run=server", "--kube-apiserver", url)
    assert run.returncode == 0, run.stderr
    [made] = [item for item in yaml.safe_load_all(run.stdout) if item and item["kind"] == "Deployment"]
    assert made["spec"].get("replicas") == replicas
