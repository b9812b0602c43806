"""Test the notes of the chart. Helm prints them only with a cluster, so here they are rendered into an object."""

import shutil
from pathlib import Path

import pytest

from tools.chart_rendering import CHART, helm, values_file

_OBJECT = 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes}\ndata: {notes: {{ include "notes" . | quote }}}\n'


@pytest.mark.parametrize(("name", "shown"), [("minimal", True), ("everything", False)])
def test_notes_show_how_to_create_a_missing_log_key(tmp_path: Path, name: str, shown: bool) -> None:
    """Without one key for all workers users cannot be found in the log."""
    chart = tmp_path / "notifier"
    shutil.copytree(CHART, chart)
    notes = chart / "templates/NOTES.txt"
    (chart / "templates/_notes.tpl").write_text('{{- define "notes" -}}' + notes.read_text() + "{{- end -}}")
    (chart / "templates/notes.yaml").write_text(_OBJECT)
    notes.unlink()
    rendered = helm("template", "notifier", chart, "-f", values_file(name), "--show-only", "templates/notes.yaml")
    assert rendered.returncode == 0, rendered.stderr
    assert "rollout status" in rendered.stdout
    assert ("create secret generic notifier-log" in rendered.stdout) == shown
