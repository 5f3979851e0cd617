"""What a training keeps in files, so that it may be killed at any moment: its state and its log."""

from __future__ import annotations

import csv
import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from networks.training.optimisation import AveragedWeights, Group
from semslam.files.writing import replacing

logger = logging.getLogger(__name__)

# Settings, of whatever part of a training, with which it may go on changed: where it lies and runs, what is written
# and scored when, how long it lasts.
_FREE = frozenset(
    {
        "out",
        "steps",
        "hours",
        "cpu_hours",
        "validate_every",
        "save_every",
        "device",
        "recorded",
        "views",
        "compiled",
        "in_memory",
    }
)


@dataclass
class State:
    """Where a training stands."""

    step: int = 0  # batches learned from
    seconds: float = 0.0  # spent, over all its runs
    best: float = -math.inf  # validation measure of best.pt
    figures: dict[str, float] = field(default_factory=dict)  # of the last validation


def write(path: Path, content: object) -> None:
    """Save with PyTorch, whole or not at all, also when killed while writing."""
    with replacing(path) as temporary:
        torch.save(content, temporary)


@dataclass(frozen=True)
class Learning:
    """Everything that the next step of a training depends on, in one place to write and read back."""

    learner: nn.Module
    groups: list[Group]
    optimisers: dict[str, torch.optim.Optimizer]  # by the group's name
    average: AveragedWeights
    state: State
    recipe: dict[str, Any]  # the settings of the training

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        content = {
            "learner": self.learner.state_dict(),
            "average": self.average.state,
            "updates": self.average.updates,
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
            "gradients": {g.name: [p.grad for p in g.parameters] for g in self.groups},  # of groups that accumulate
            "counts": {group.name: (group.seen, group.batches) for group in self.groups},
            "random": torch.get_rng_state(),
            "step": self.state.step,
            "seconds": self.state.seconds,
            "best": float(self.state.best),
            "figures": self.state.figures,
            "recipe": self.recipe,
        }
        write(path, content)

    def restore(self, path: Path) -> None:
        """Bring everything back to where `save` left it; ValueError where that was a training of other settings."""
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True)
            recipe = saved["recipe"]
        except Exception as error:  # whatever a damaged or foreign file makes PyTorch raise
            raise _not_continued(path, error) from error
        if changed := _differing(recipe, self.recipe):
            raise ValueError(
                f"{path}: is of a training with other settings: {', '.join(changed)}; restore them, or choose another "
                f"`out` to start anew"
            )
        state, average = self.state, self.average
        try:
            self.learner.load_state_dict(saved["learner"])
            for name, optimiser in self.optimisers.items():
                optimiser.load_state_dict(saved["optimisers"][name])
            for group in self.groups:
                group.seen, group.batches = saved["counts"][group.name]
                for parameter, gradient in zip(group.parameters, saved["gradients"][group.name], strict=True):
                    parameter.grad = None if gradient is None else gradient.to(parameter.device)
            average.state = {key: saved["average"][key].to(value.device) for key, value in average.state.items()}
            average.updates = saved["updates"]
            torch.set_rng_state(saved["random"])
            state.step, state.seconds, state.best = saved["step"], saved["seconds"], saved["best"]
            state.figures = saved["figures"]
        except Exception as error:
            raise _not_continued(path, error) from error
        logger.info("continuing %s at step %d", path, state.step)


def _not_continued(path: Path, error: Exception) -> ValueError:
    message = (str(error).splitlines() or [type(error).__name__])[0]
    return ValueError(f"{path}: cannot be continued from ({message}); move it away to start anew")


def _differing(before: Any, now: Any, name: str = "") -> list[str]:
    """The settings that differ, with both values; those that only one version of semslam knows are passed over."""
    if isinstance(before, dict) and isinstance(now, dict):
        shared = [key for key in before if key in now and key not in _FREE]
        return [found for key in shared for found in _differing(before[key], now[key], f"{name}.{key}".lstrip("."))]
    if isinstance(before, tuple) and isinstance(now, tuple) and len(before) == len(now):
        pairs = enumerate(zip(before, now, strict=True))
        return [found for i, (old, new) in pairs for found in _differing(old, new, f"{name}[{i}]")]
    if before == now:
        return []
    values = [repr(value) if len(repr(value)) < 60 else "..." for value in (before, now)]
    return [f"{name} (was {values[0]}, is {values[1]})"]


class Log:
    """A CSV file of rows whose columns may grow; rows after `step`, which a killed run left, are dropped."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if path.is_file() and step > 0:
            with path.open(newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]

    def add(self, row: dict[str, float]) -> None:
        self.rows.append({k: v if isinstance(v, int) else f"{v:.6g}" for k, v in row.items()})

    def flush(self) -> None:
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        with replacing(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
