"""`muster operations`: the single operations that can be measured, by sets of problems."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli import options

Name = Annotated[str, typer.Argument(metavar="SET", help="Its name: deepbench-small.", show_default=False)]

operations = typer.Typer(invoke_without_command=True)


@operations.callback()
def operations_(context: typer.Context, form: options.OutputFormat = "table", json: options.Json = False) -> None:
    """The single operations that can be measured; by itself it lists the sets of problems."""
    if context.invoked_subcommand is None:
        list_(form=form, json=json)


@operations.command("list")
def list_(form: options.OutputFormat = "table", json: options.Json = False) -> None:
    """List the sets of problems, and how many each has of each operation."""
    from orchestrator.cli.output import print_table
    from orchestrator.report.operations import sets_table

    print_table(sets_table(), form="json" if json else form)


@operations.command()
def show(name: Name, form: options.OutputFormat = "table", json: options.Json = False) -> None:
    """Show the problems of a set: passes, operations, and how many of these for each byte."""
    import difflib

    from orchestrator.cli.output import print_table
    from orchestrator.errors import UsageError
    from orchestrator.report.operations import problems_table
    from workers import ops

    if name not in ops.set_names():
        close = difflib.get_close_matches(name, ops.set_names(), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UsageError(
            f"no set of problems is called {name!r}, there are {', '.join(ops.set_names())}{hint}",
            remedy="muster operations",
        )
    print_table(problems_table(name), form="json" if json else form)
