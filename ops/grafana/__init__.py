"""Grafana's dashboards and how they are provisioned. The JSON files are written by `python -m ops.grafana`.

The code here is a tool of development: it needs the `dev` extra, and nothing else may import it. The JSON files need nothing.
"""
