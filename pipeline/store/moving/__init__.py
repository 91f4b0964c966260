"""Statements that take a tenant from one cell to another: the move's state in both, and the copies between them."""
