"""Statements on the tenants' logs: positions, checkpoints, anchors, keys. None moves or removes a leaf."""
