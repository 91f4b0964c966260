"""Benchmarks on private servers, each with its peers or a floor in the same run: the figure to quote is the ratio.

Nothing here is used in production.
"""
