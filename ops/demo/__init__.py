"""`waxseal demo`: the whole system on private servers, real traffic through it, and what became of every message.

Nothing here is used in production.
"""
