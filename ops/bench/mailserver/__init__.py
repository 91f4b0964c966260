"""A Dovecot of our own, for the benchmark and the tests of mail."""
