"""Manifests for Kubernetes: a Kustomize base, components for servers, monitoring and scaling, and a small production.

`python -m ops.kubernetes` writes those that derive from the processes' own table and from Prometheus' rules; the others are
written by hand. Nothing that runs imports this package.
"""
