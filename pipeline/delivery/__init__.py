"""The rules of delivery: filters, backoff, breaker, allowances, addresses, signatures, templates. Nothing is sent here."""
