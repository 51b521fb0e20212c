"""One file a step, in order of its number; a released step never changes."""
