"""Connections of the driver of Postgres: when one is given up, and which of several servers it may lead to."""
