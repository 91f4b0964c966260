"""The rules of delivery: filters, backoff, breaker, allowances, addresses, signatures, templates. No network I/O."""
