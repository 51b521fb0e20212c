"""Runs that start by themselves: when (pure), what is decided then (pure), who does it, and who is told."""
