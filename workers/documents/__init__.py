"""Makes the documents of mails, parsing in child processes. The parser itself is in `pipeline.mail`."""
