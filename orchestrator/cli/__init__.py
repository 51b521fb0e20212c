"""The command line: parses, calls, renders, and turns every outcome into an exit code."""
