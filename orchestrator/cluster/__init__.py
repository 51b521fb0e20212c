"""How a Ray cluster comes to be and goes: one file a way."""
