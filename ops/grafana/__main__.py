"""Writes the dashboards: `python -m ops.grafana`."""

from pathlib import Path

from ops.grafana.files import files

for name, text in files().items():
    (Path(__file__).parent / name).write_text(text, encoding="utf-8")
