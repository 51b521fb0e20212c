"""From a config and what was found to the cases of a run, in order. Pure."""
