"""The configuration as a whole, for those who upload it."""
