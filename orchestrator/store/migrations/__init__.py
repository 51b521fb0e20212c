"""Numbered steps of the store; :mod:`orchestrator.store.migrate` takes them."""
