"""Runs as files that another lab can check, read and take in."""
