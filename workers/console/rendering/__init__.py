"""How values become pages: text that shows everything it holds, addresses, times, plots, and assets under hashed names."""
