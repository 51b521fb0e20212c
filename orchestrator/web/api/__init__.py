"""The same data as the command line's ``--json``, under ``/api/v1``."""
