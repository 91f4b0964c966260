"""Commands that erase content."""
