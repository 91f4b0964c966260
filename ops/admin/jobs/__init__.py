"""Jobs: long acts that are counted when they are started, and done in the background."""
