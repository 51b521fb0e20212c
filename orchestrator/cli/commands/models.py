"""`muster models`: the networks that can be measured, and the layers of one."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli import options

Name = Annotated[str, typer.Argument(metavar="MODEL", help="Its name: vgg-a.", show_default=False)]

models = typer.Typer(invoke_without_command=True)


@models.callback()
def models_(context: typer.Context, form: options.OutputFormat = "table", json: options.Json = False) -> None:
    """The networks that can be measured; by itself it lists them."""
    if context.invoked_subcommand is None:
        list_(form=form, json=json)


@models.command("list")
def list_(form: options.OutputFormat = "table", json: options.Json = False) -> None:
    """List the networks: their images, parameters and multiply-adds."""
    from orchestrator.cli.output import print_table
    from orchestrator.report.networks import models_table
    from workers import models as networks

    print_table(models_table([networks.get(name) for name in networks.names()]), form="json" if json else form)


@models.command()
def show(name: Name, form: options.OutputFormat = "table", json: options.Json = False) -> None:
    """Show the layers of a network: settings, shapes, parameters and multiply-adds."""
    from orchestrator.cli.output import print_table
    from orchestrator.errors import UsageError
    from orchestrator.report.networks import layers_table
    from workers import models as networks

    try:
        model = networks.get(name)
    except networks.UnknownModelError as error:
        raise UsageError(str(error), remedy="muster models list") from None
    print_table(layers_table(model), form="json" if json else form)
