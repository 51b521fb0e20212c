"""What the samples say: statistics and published references. Pure; numpy only."""
