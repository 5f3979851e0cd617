"""`semslam batch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from semslam.commands.app import Out, app, progress

COMMAND = 'The command for each, as "reconstruct --poses tracked"; may hold {sequence}, {out}, {name}.'


@app.command()
def batch(
    listing: Annotated[Path, typer.Argument(metavar="LIST", help="Text file with a sequence per line.")],
    out: Out,
    command: Annotated[str, typer.Option("--command", help=COMMAND)] = "reconstruct",
    jobs: Annotated[int, typer.Option(help="Processes at once; they share the processor's cores.")] = 1,
    retries: Annotated[int, typer.Option(help="How often to retry a task that fails.")] = 1,
    engine: Annotated[Literal["local"], typer.Option(help="Where tasks run: local, on this machine.")] = "local",
) -> None:
    """Run one command for many sequences; finished tasks are not repeated; exit code 1 if any failed."""
    from semslam.runs.batch import Outcome, run_tasks, summary, tasks_of, write_summary

    tasks = tasks_of(listing, command, out)
    with progress(len(tasks), "sequences") as advance:

        def tell(outcome: Outcome) -> None:
            advance()
            if not outcome.ok:
                typer.echo(f"{outcome.name}: failed after {outcome.attempts} attempts: {outcome.message}", err=True)

        outcomes = run_tasks(tasks, out, jobs, retries, tell)
    rows = list(summary(outcomes, out))
    write_summary(rows, out / "summary.csv")
    for row in rows:
        state = "done" if row["ok"] else "FAILED"
        typer.echo(f"{row['name']:30} {state:7} {row['seconds']:8.1f} s  {row['frames_fused'] or '-':>7} frames fused")
    failed = sum(not outcome.ok for outcome in outcomes)
    before = sum(not outcome.fresh for outcome in outcomes)
    typer.echo(f"{len(outcomes) - failed} of {len(outcomes)} done, {before} of them before: {out / 'summary.csv'}")
    if failed:
        raise typer.Exit(1)
