"""Networks as data: one file a family, each with its named variants."""
