"""How a command becomes an act: over Ray, or simulated in virtual time."""
