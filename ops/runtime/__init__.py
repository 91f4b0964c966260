"""What every process needs to run: database, blobs, secrets, logs, TLS, threads. No command, no policy."""
