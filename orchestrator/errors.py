"""The tree of errors that reach a person, and the exit codes of the command line.

::

    MusterError                 what is wrong, and what to type to mend it
    ├── UsageError              the command or its arguments are wrong                        exit 2
    │   ├── ConfigError         the config is wrong: every problem as file:line:column        exit 2
    │   ├── MixtureError        two runs that cannot stand side by side                       exit 2
    │   ├── UnknownNameError    nothing is called so                                          exit 2
    │   │   └── RunNotFoundError  no run of that name in the store, or more than one            exit 2
    │   └── MissingFrameworkError  no host has a framework that the config asks for           exit 2
    ├── StoreError              the store cannot be opened, read or written                   exit 2
    │   ├── StoreVersionError   made by a newer muster
    │   ├── StoreCorruptError   not a muster store, or damaged
    │   ├── StoreReadOnlyError  cannot be written
    │   ├── StoreFullError      no space left where it lies
    │   └── StoreBusyError      being made, migrated or locked by another process
    ├── BundleError             a bundle cannot be written, or is not what it says            exit 2
    └── ClusterError            Ray could not be started or reached                           exit 4

What happens to a *case* is never one of these: that is a :class:`workers.protocol.Verdict`.
"""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """What the process tells its caller."""

    #: Everything that was asked for was done.
    OK = 0
    #: A check found something that would stop a run, or a comparison found a regression.
    FOUND = 1
    #: The command or the config is wrong; nothing was run.
    USAGE = 2
    #: The run ended, and some cases have no figure.
    INCOMPLETE = 3
    #: Nothing could be run at all.
    NOTHING_RAN = 4
    #: Stopped by Ctrl-C or SIGTERM; what had finished is kept.
    INTERRUPTED = 130


class MusterError(Exception):
    """Something that a person can mend: ``message`` says what and where, ``remedy`` what to do."""

    exit_code = ExitCode.USAGE

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class UsageError(MusterError):
    """The command or its arguments are wrong."""


class ConfigError(UsageError):
    """The config is wrong; ``message`` holds every problem, one to a line."""


class MixtureError(UsageError):
    """Two runs cannot stand side by side: one is simulated, or they are the same."""


class UnknownNameError(UsageError):
    """Nothing that was asked for is called so."""


class RunNotFoundError(UnknownNameError):
    """No run answers to that name, or more than one does."""


class MissingFrameworkError(UsageError):
    """No host of the run has a framework that the config asks for."""


class StoreError(MusterError):
    """The store cannot be opened, read or written."""


class StoreVersionError(StoreError):
    """The store was made by a newer muster."""


class StoreCorruptError(StoreError):
    """The file is not a muster store, or it is damaged."""


class StoreReadOnlyError(StoreError):
    """The store cannot be written."""


class StoreFullError(StoreError):
    """No space is left where the store lies."""


class StoreBusyError(StoreError):
    """Another process is making or migrating the store, or has it locked."""


class BundleError(MusterError):
    """A bundle cannot be written, or is damaged, forged, too large, or of another age."""


class ClusterError(MusterError):
    """Ray could not be started or reached."""

    exit_code = ExitCode.NOTHING_RAN


# --- what others say, for our messages -------------------------------------------------------------------------


def first_line(error: BaseException) -> str:
    """Return the first line of what an exception says; its name where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def last_line(text: str, otherwise: str) -> str:
    """Return the last line of what a program said; ``otherwise`` where it said nothing."""
    lines = text.strip().splitlines()
    return lines[-1] if lines else otherwise
