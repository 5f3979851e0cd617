"""`semslam batch`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from semslam.commands.app import app, interruptible, progress

if TYPE_CHECKING:
    from semslam.batch.tasks import Command

COMMAND = 'The command for each, as "reconstruct --poses tracked"; may hold {sequence}, {out}, {name}.'
ENGINE = "local: processes of this machine; ray: the cluster at RAY_ADDRESS, or one on this machine."


@app.command()
def batch(
    listing: Annotated[Path, typer.Argument(metavar="LIST", help="Text file with a sequence, run or image per line.")],
    out: Annotated[str, typer.Option("--out", help="Folder to write to, or an address such as s3://bucket/folder.")],
    command: Annotated[str, typer.Option("--command", help=COMMAND)] = "reconstruct",
    jobs: Annotated[int, typer.Option(min=1, help="Tasks at once; they share the cores.")] = 1,
    retries: Annotated[
        int,
        typer.Option(
            min=0, help="How often to retry a task that ends with another exit code than 2 (wrong use), or is killed."
        ),
    ] = 1,
    group: Annotated[int, typer.Option(help="Lines that one task takes, such as 500 images of `predict`.")] = 1,
    engine: Annotated[Literal["local", "ray"], typer.Option(help=ENGINE)] = "local",
) -> None:
    """Run one command for many sequences, runs or images.

    Finished tasks are not repeated, one that fails stops no other; exit code 1 if any failed.
    """
    from semslam.batch.engines import ENGINES
    from semslam.batch.results import Results
    from semslam.batch.summary import write_summary
    from semslam.batch.tasks import tasks_of
    from semslam.batch.work import Work, pausing_together, undone

    tasks = tasks_of(listing, command, _commands(), group)
    results = Results.at(out)
    work = Work(results, retries, os.getcwd())
    waiting, before = undone(tasks, work)
    found = {outcome.name: outcome for outcome in before}
    with interruptible() as interrupted, pausing_together(), progress(len(waiting), "tasks") as advance:
        for outcome in ENGINES[engine](waiting, work, jobs, interrupted):
            found[outcome.name] = outcome
            advance()
            if not outcome.ok:
                attempts = f"{outcome.attempts} attempt{'s' if outcome.attempts > 1 else ''}"
                typer.echo(f"{outcome.name}: failed after {attempts}: {outcome.message}", err=True)
        stopped = interrupted()
        outcomes = [found[task.name] for task in tasks if task.name in found]
        write_summary(outcomes, results)  # still deaf to Ctrl-C
    for outcome in outcomes:
        fused = f"{outcome.figures['frames_fused']:7} frames fused" if "frames_fused" in outcome.figures else ""
        typer.echo(
            f"{outcome.name:30} {'done' if outcome.ok else 'FAILED':7} {outcome.seconds:8.1f} s  {fused}".rstrip()
        )
    done = sum(outcome.ok for outcome in outcomes)
    typer.echo(f"{done} of {len(outcomes)} done, {len(before)} of them before: {results.address}/summary.html")
    if stopped and done < len(tasks):
        typer.echo(f"stopped with {len(tasks) - done} of {len(tasks)} tasks to go; the same command goes on from here")
        raise typer.Exit(130)
    if done < len(outcomes):
        raise typer.Exit(1)


def _commands() -> dict[str, Command]:
    """Every other command, by its name."""
    from semslam.batch.tasks import Command

    group: Any = typer.main.get_command(app)
    return {
        name: Command(
            takes=any(parameter.param_type_name == "argument" for parameter in command.params),
            needs_out=any("--out" in parameter.opts and parameter.required for parameter in command.params),
            writes_json=any("--json" in parameter.opts for parameter in command.params),
        )
        for name, command in group.commands.items()
        if name not in ("batch", "config", "kinds")
    }
