"""Benchmarks on private servers, each with its peers and its floor in the same run: the figure to quote is the ratio."""
