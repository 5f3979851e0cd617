"""`semslam train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from semslam.commands.app import app


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="YAML of a training; see configs/.")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="Any setting: loop.steps=1000")] = None,
) -> None:
    """Train a network; a training that was killed continues.

    A `kind: pose` in the file trains a pose network (see configs/pose_*.yaml); without it, a joint network.
    """
    from networks.training import joint as training_joint
    from networks.training import pose as training_pose
    from semslam import config as configs

    kinds: dict[str, tuple[Any, Any]] = {
        "joint": (training_joint.JointTraining, training_joint.train),
        "pose": (training_pose.PoseTraining, training_pose.train),
    }
    values = configs.read(config)
    kind = values.pop("kind", "joint") if isinstance(values, dict) else "joint"
    if not isinstance(kind, str) or kind not in kinds:
        raise ValueError(f"{config}: kind is {kind!r}; known are {', '.join(kinds)}")
    form, run = kinds[kind]
    settings = configs.from_dict(values, form, str(config))
    settings = configs.updated(settings, map(configs.parsed, set_ or ()), "--set")
    figures = run(settings, report=lambda row: typer.echo(" ".join(f"{key}={value:.4g}" for key, value in row.items())))
    typer.echo(" ".join(f"{key}={value:.4g}" for key, value in figures.items()))
    typer.echo(f"weights: {settings.out}/network.safetensors")
