"""`waxseal doctor`: checks of the set-up, each with what it found and what to mend. None changes anything that is in use."""
