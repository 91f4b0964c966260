"""Statements on deliveries and on the endpoints they are for. No policy: what is written was decided before."""
