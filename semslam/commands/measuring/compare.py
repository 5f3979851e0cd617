"""`semslam compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from semslam.commands.app import (
    EVERY,
    START,
    Engine,
    FrameCount,
    Kind,
    Out,
    SettingsFile,
    Weights,
    app,
    file_option,
    frames_option,
    interruptible,
    progress,
)

OVERWRITE = "Replace variants that were made with other settings or weights in --out."


@app.command()
def compare(
    sequences: Annotated[list[str], typer.Argument(help="Recordings; several are also pooled.")],
    out: Out,
    variants: Annotated[
        str | None,
        typer.Option(help="Names separated by commas, such as sensor,predicted_raw,predicted_all, or all (default)."),
    ] = None,
    classes: Annotated[str, typer.Option(help="nyu13 | nyu40, which is scored as nyu13 too")] = "nyu40",
    kind: Kind = None,
    start: Annotated[int | None, frames_option("--start", START)] = None,
    frames: FrameCount = None,
    every: Annotated[int | None, frames_option("--every", EVERY)] = None,
    config: SettingsFile = None,
    weights: Weights = None,
    engine: Engine = None,
    truth: Annotated[
        str, typer.Option(help="Surface to compare with: auto | mesh | depth (noise-free) | tsdf | a mesh or cloud.")
    ] = "auto",
    json: Annotated[Path | None, file_option("--json", "Also write the figures to this file, flat.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=OVERWRITE)] = False,
) -> None:
    """Compare sensor depth with predicted depth, everything else equal: makes runs, and one report.

    10 to 17 runs a recording, each as long as a `reconstruct`; --variants and --frames make fewer and shorter ones.
    """
    from semslam.comparison.comparison import open_comparisons
    from semslam.comparison.sections import flat_figures, write
    from semslam.comparison.variants import Settings
    from semslam.files.writing import write_json
    from semslam.runs.progress import NoMap

    settings = Settings(classes, config, kind, weights, engine, truth, start, frames, every)
    comparisons = open_comparisons(sequences, out, settings, variants, overwrite)
    for comparison in comparisons:
        with_sensor = [variant for variant in comparison.variants if variant.depth == "sensor"]
        for variant in list(comparison.variants):
            try:
                _make(comparison, variant)
            except NoMap as error:
                if variant.poses != "tracked" and variant.depth == "sensor":
                    raise
                typer.echo(f"{comparison.folder(variant)}: left out: {error}", err=True)
                comparison.leave_out(variant, str(error))
        if not comparison.variants:
            raise ValueError(f"{comparison.path}: no variant could be made, so there is nothing to compare; see above")
        if with_sensor and not set(with_sensor) & set(comparison.variants):
            raise ValueError(
                f"{comparison.path}: no variant with the sensor's depth could be made, so there is nothing to compare "
                f"predicted depth with; see above, or name variants without it (--variants predicted_all_tracked)"
            )
        with progress(len(comparison.variants), "variants judged") as advance:
            for variant in comparison.variants:
                comparison.evaluate(variant)
                advance()
    for path in write(out, comparisons):
        typer.echo(f"report: {path}")
    if json:
        write_json(json, flat_figures(comparisons))
        typer.echo(f"figures: {json}")


def _make(comparison: Any, variant: Any) -> None:
    """Make one variant's run, or go on with it; Exit where it was interrupted, NoMap where it cannot be made."""
    from semslam.comparison.making import finished

    run = comparison.prepared(variant)
    if run is None:
        typer.echo(f"{comparison.folder(variant)}: done before")
        return
    with interruptible() as interrupted, progress(len(run), f"frames of {variant.name}") as advance:
        for _ in run:
            advance()
            if interrupted():
                break
        run.save()  # still deaf to Ctrl-C
    if len(run):
        typer.echo(f"stopped in {variant.name}, {len(run)} frames to go; the same command goes on from here")
        raise typer.Exit(130)
    finished(run)
    typer.echo(f"{comparison.folder(variant)}: {run.progress.seconds:.0f} s")
