"""What a verification checks of entries and chains: fast for intact ones, by name for others. Pure but for look-ups."""
