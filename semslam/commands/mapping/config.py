"""`semslam config`."""

from __future__ import annotations

from typing import Annotated

import typer

from semslam.commands.app import SettingsFile, app


@app.command()
def config(
    file: SettingsFile = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Any setting: slam.fusion.gate=0.02")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say what each setting means, and its unit.")] = False,
) -> None:
    """Print every setting of a run as YAML, for --config; with --explain what each one means."""
    from semslam import config as configs
    from semslam.runs.config import RunConfig, settings_of

    settings = settings_of(file, {}, set_ or [])
    if not explain:
        typer.echo(configs.to_yaml(settings), nl=False)
        return
    group = None
    for row in configs.explained(RunConfig):
        if group != (group := row.name.rpartition(".")[0]):
            typer.echo(f"\n{group}")
        typer.echo(f"  {row.name} = {row.default}")
        typer.echo(f"      {row.kind}; {row.unit and f'{row.unit}: '}{row.meaning}")
