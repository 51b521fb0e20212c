"""Measures muster itself: each benchmark is a script, and `run.py` runs them all."""
