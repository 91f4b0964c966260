"""The API: one row of a table for each operation, from which its route, its document and its tests are made."""
