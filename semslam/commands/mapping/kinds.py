"""`semslam kinds`."""

from __future__ import annotations

import typer

from semslam.commands.app import app


@app.command()
def kinds() -> None:
    """List the recordings that are read: what to give as SEQUENCE for which device or data set."""
    from sequences.devices import table

    typer.echo(table())
