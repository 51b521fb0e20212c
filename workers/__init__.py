"""What runs on a host: the probe, the agent of a device, and the fresh process that measures a case.

Standard library only, except where a module says otherwise; nothing here ever imports ``orchestrator``.
"""
