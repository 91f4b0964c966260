"""The sequencer process: gives the entries of each tenant their positions in its log. It signs nothing."""
