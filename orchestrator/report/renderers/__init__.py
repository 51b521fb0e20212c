"""One file a form of output, found by its name."""
