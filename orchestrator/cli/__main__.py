"""``python -m orchestrator.cli``: the command line of this very installation."""

from orchestrator.cli.app import main

main()
