"""The command line: names, global flags, and the one place where errors become stderr and an exit code.

Every module of ``orchestrator.cli.commands`` is a command of its name, but for an underscore at its end; it holds a
function of that name, or a Typer application with commands of its own.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from orchestrator.cli import commands
from orchestrator.errors import ConfigError, ExitCode, MusterError
from workers.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The order in which a newcomer needs them; a command that is not named here comes after these.
ORDER: Final = (
    "init", "check", "devices", "plan", "run", "runs", "show", "resume", "rerun", "compare", "baseline", "noise",
    "trend", "tune", "plot", "report", "export", "import_",
    "schedule", "serve", "prune", "env", "models", "operations", "quarantine", "cluster",
)  # fmt: skip


def _print_version(asked: bool) -> None:
    if asked:
        print(f"muster {VERSION}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Put every device of a lab through the same benchmark, and get one table that can be trusted."""


def build() -> typer.Typer:
    """Return the command line with every command of the commands folder."""
    app = typer.Typer(
        name="muster",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    found = [module.name for module in pkgutil.iter_modules(commands.__path__)]
    for name in sorted(found, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name)):
        module = importlib.import_module(f"{commands.__name__}.{name}")
        command = getattr(module, name)
        word = name.rstrip("_")  # `import` is no name for a module
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=word)
        else:
            app.command(word)(command)
    return app


def call(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; what is wrong goes to stderr."""
    try:
        code: Any = build()(list(arguments) if arguments is not None else None, standalone_mode=False)
    except MusterError as error:
        _say(error)
        return int(error.exit_code)
    except typer.Abort:
        return int(ExitCode.INTERRUPTED)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return int(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        # The reader went away (`muster show | head`): nothing is wrong, and nothing more can be said to it.
        sys.stdout = None
        return int(ExitCode.OK)
    except Exception as error:
        if not _is_usage_error(error):
            raise
        _show_usage(error)
        return int(ExitCode.USAGE)
    return int(code or ExitCode.OK)


def main() -> None:
    """Entry point of the console script."""
    sys.exit(call())


def _say(error: MusterError) -> None:
    # A config's problems begin with file:line:column, as editors and terminals make links of.
    print(error.message if isinstance(error, ConfigError) else f"muster: {error.message}", file=sys.stderr)
    if error.remedy:
        print(f"  → {error.remedy}", file=sys.stderr)


def _is_usage_error(error: Exception) -> bool:
    # Typer carries its own copy of Click, whose exceptions are known by what they can do.
    return hasattr(error, "show") and hasattr(error, "exit_code")


def _show_usage(error: Any) -> None:
    error.show(file=sys.stderr)


if __name__ == "__main__":
    main()
