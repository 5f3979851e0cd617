"""The training loop, the same for every network: an objective says what is learned, the loop how.

The batch of a step is a function of (seed, step), and the checkpoint holds everything else, so a training that was
killed at any moment goes on to the same bits as one that was not.
"""

from __future__ import annotations

import csv
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from networks.encoders import freeze_norms
from networks.optimisation import (
    OPTIMISERS,
    SCHEDULES,
    AveragedWeights,
    Group,
    clip,
    keep_freed_memory,
    warmed_up,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loop:
    """How long and by which rule weights are moved."""

    steps: int = 1000  # batches
    hours: float | None = None  # end after so much time, the schedule with it, if that comes before `steps`
    optimiser: str = "adamw"  # or sgd (momentum 0.9)
    schedule: str = "poly"  # or step (a tenth after each third), constant
    warmup: int = 0  # steps
    clip: float | None = None  # largest norm of the gradient
    average: float = 0.999  # decay of the averaged weights that are validated and shipped; 0 = the last weights
    freeze_norms: bool = True  # keep batch norm statistics as they are
    validate_every: int = 500  # steps; also at the end
    save_every: int = 200  # steps
    seed: int = 42


class Objective(Protocol):
    """What is learned: data, model, loss and measure."""

    model: nn.Module
    groups: list[Group]
    measure: str  # the validation figure by which the best weights are chosen; larger is better

    def batch(self, step: int, progress: float) -> Any:
        """The batch of a step: a function of its arguments (it runs in another thread, a step ahead)."""

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, float], dict[str, int]]:
        """The loss, its named terms for the log, and how many examples concern each group."""

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Figures of `model` (in eval mode) on held-out data."""


def run(
    objective: Objective,
    loop: Loop,
    folder: str | Path,
    report: Callable[[dict[str, float]], None] | None = None,
) -> dict[str, float]:
    """Train until the steps or the hours are used up; continue from `folder`/last.pt if there is one.

    Writes `last.pt` (everything), `best.pt` (state dict of the averaged weights with the best validation) and
    `log.csv`.

    Args:
        report: called with each row of the log.

    Returns: the figures of the last validation.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    torch.manual_seed(loop.seed)
    model = objective.model
    optimisers = {group.name: OPTIMISERS[loop.optimiser](group) for group in objective.groups}
    average = AveragedWeights(model, loop.average)
    state = _State()
    if (folder / "last.pt").is_file():
        _restore(folder / "last.pt", loop, objective, optimisers, average, state)
    log = Log(folder / "log.csv", state.step)
    schedule = SCHEDULES[loop.schedule]
    began = time.monotonic() - state.seconds

    def progress(step: int) -> float:
        done = step / loop.steps
        return done if loop.hours is None else max(done, (time.monotonic() - began) / (3600 * loop.hours))

    ahead = ThreadPoolExecutor(1)
    try:
        pending = ahead.submit(objective.batch, state.step, progress(state.step))
        while (now := progress(state.step)) < 1.0:
            started = time.monotonic()
            batch = pending.result()
            pending = ahead.submit(objective.batch, state.step + 1, progress(state.step + 1))
            model.train()
            if loop.freeze_norms:
                freeze_norms(model)
            loss, terms, examples = objective.loss(batch)
            loss.backward()
            if not torch.isfinite(loss):
                raise ValueError(
                    f"{folder}: the loss is {float(loss.detach())} at step {state.step}; lower the rates or set clip"
                )
            factor = warmed_up(schedule(now), state.step, loop.warmup)
            _move(objective.groups, optimisers, examples, factor, loop.clip)
            average.update(model)
            state.step += 1
            state.seconds = time.monotonic() - began
            row = {"step": state.step, "progress": now, "factor": factor, "seconds": state.seconds,
                   "step_seconds": time.monotonic() - started, **terms}  # fmt: skip
            ended = progress(state.step) >= 1.0
            if ended or state.step % loop.validate_every == 0:
                state.figures = _validated(objective, average, loop)
                row |= {f"val_{key}": value for key, value in state.figures.items()}
                if state.figures[objective.measure] > state.best:
                    state.best = state.figures[objective.measure]
                    _write(folder / "best.pt", average.state if loop.average else model.state_dict())
            log.add(row)
            if report is not None:
                report(row)
            if ended or state.step % loop.save_every == 0:
                state.seconds = time.monotonic() - began
                log.flush()
                _save(folder / "last.pt", loop, objective, optimisers, average, state)
    finally:
        ahead.shutdown(cancel_futures=True)
        log.flush()
    model.load_state_dict(average.state if loop.average else model.state_dict())
    model.eval()
    return state.figures


@dataclass
class _State:
    step: int = 0
    seconds: float = 0.0
    best: float = -np.inf
    figures: dict[str, float] = None  # type: ignore[assignment]


def _move(
    groups: list[Group],
    optimisers: dict[str, torch.optim.Optimizer],
    examples: dict[str, int],
    factor: float,
    norm: float | None,
) -> None:
    """Step the groups that have seen enough examples; the others keep their gradients."""
    due = []
    for group in groups:
        if examples.get(group.name, 0):
            group.seen += examples[group.name]
            group.batches += 1
        if group.seen >= group.every:
            due.append(group)
    for group in due:
        if group.batches > 1:
            for parameter in group.parameters:
                if parameter.grad is not None:
                    parameter.grad /= group.batches
    if norm is not None:
        clip((p for group in due for p in group.parameters), norm)
    for group in due:
        optimiser = optimisers[group.name]
        for part in optimiser.param_groups:
            part["lr"] = group.rate * factor
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        group.seen = group.batches = 0


def _validated(objective: Objective, average: AveragedWeights, loop: Loop) -> dict[str, float]:
    model = objective.model
    kept = {key: value.detach().clone() for key, value in model.state_dict().items()}
    if loop.average:
        model.load_state_dict(average.state)
    model.eval()
    with torch.no_grad():
        figures = objective.validate(model)
    model.load_state_dict(kept)
    return figures


# ------------------------------------------------------------------------------------------- files


def _write(path: Path, content: object) -> None:
    """Whole or not at all, also when killed while writing."""
    temporary = path.with_name(f".{path.name}.part")
    torch.save(content, temporary)
    os.replace(temporary, path)


def _save(
    path: Path,
    loop: Loop,
    objective: Objective,
    optimisers: dict[str, torch.optim.Optimizer],
    average: AveragedWeights,
    state: _State,
) -> None:
    gradients = {
        group.name: [None if p.grad is None else p.grad for p in group.parameters] for group in objective.groups
    }
    _write(
        path,
        {
            "loop": asdict(loop),
            "model": objective.model.state_dict(),
            "average": average.state,
            "updates": average.updates,
            "optimisers": {name: optimiser.state_dict() for name, optimiser in optimisers.items()},
            "gradients": gradients,
            "counts": {group.name: (group.seen, group.batches) for group in objective.groups},
            "random": torch.get_rng_state(),
            "step": state.step,
            "seconds": state.seconds,
            "best": float(state.best),
            "figures": state.figures,
        },
    )


def _restore(
    path: Path,
    loop: Loop,
    objective: Objective,
    optimisers: dict[str, torch.optim.Optimizer],
    average: AveragedWeights,
    state: _State,
) -> None:
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        objective.model.load_state_dict(saved["model"])
        for name, optimiser in optimisers.items():
            optimiser.load_state_dict(saved["optimisers"][name])
        for group in objective.groups:
            group.seen, group.batches = saved["counts"][group.name]
            for parameter, gradient in zip(group.parameters, saved["gradients"][group.name], strict=True):
                parameter.grad = gradient
    except Exception as error:  # whatever a damaged or foreign file makes PyTorch raise
        message = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path}: cannot be continued from ({message}); move it away to start anew") from error
    average.state, average.updates = saved["average"], saved["updates"]
    torch.set_rng_state(saved["random"])
    state.step, state.seconds, state.best = saved["step"], saved["seconds"], saved["best"]
    state.figures = saved["figures"]
    logger.info("continuing %s at step %d", path, state.step)


class Log:
    """A CSV file of rows whose columns may grow; rows after `step` of an earlier, killed run are dropped."""

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
        temporary = self.path.with_name(f".{self.path.name}.part")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
        os.replace(temporary, self.path)
