"""Writes the manifests that derive from the program: `python -m ops.kubernetes`."""

from pathlib import Path

from ops.kubernetes.written import written

for name, text in written().items():
    (Path(__file__).parent / name).write_text(text, encoding="utf-8")
