"""Traces: the spans of each step of the route, recorded from its facts when it is over. Off unless a collector is named."""
