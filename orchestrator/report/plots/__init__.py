"""Pictures of runs. Each kind is a module of this folder with a function that gives a matplotlib figure."""
