"""How the head reaches a host and has things done there: one file a way."""
