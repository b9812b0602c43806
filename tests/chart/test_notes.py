"""What the chart says after an installation. Helm shows it only beside a cluster, so here it is put into an object."""

import shutil
from pathlib import Path

import pytest

from tools.chart_rendering import CHART, helm, values_file

_OBJECT = 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes}\ndata: {notes: {{ include "notes" . | quote }}}\n'


@pytest.mark.parametrize(("name", "told"), [("minimal", True), ("everything", False)])
def test_how_to_make_the_key_of_the_log_is_told_where_it_is_missing(tmp_path: Path, name: str, told: bool) -> None:
    """Without one key for all workers nobody finds a user in the log."""
    chart = tmp_path / "notifier"
    shutil.copytree(CHART, chart)
    notes = chart / "templates/NOTES.txt"
    (chart / "templates/_notes.tpl").write_text('{{- define "notes" -}}' + notes.read_text() + "{{- end -}}")
    (chart / "templates/notes.yaml").write_text(_OBJECT)
    notes.unlink()
    said = helm("template", "notifier", chart, "-f", values_file(name), "--show-only", "templates/notes.yaml")
    assert said.returncode == 0, said.stderr
    assert "rollout status" in said.stdout
    assert ("create secret generic notifier-log" in said.stdout) == told
