"""Servers of several hosts, the processes on them, steady traffic, and what is checked after hosts were lost."""
