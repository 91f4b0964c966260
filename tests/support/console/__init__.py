"""The console, and a browser that asks it."""
