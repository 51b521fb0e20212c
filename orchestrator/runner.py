"""The loop of a run: next event or deadline, to the dispatcher, to the engine; commit to the store; tell listeners."""
