"""The pages: each reads what it shows, and gives its template plain values."""
