"""A tenant is taken from one cell to another: what is in the way, the copy, the freeze, the arrival, and the way back."""
