"""The training loop, the same for every network: an objective says what is learned, the loop how.

The batch of a step is a function of (seed, step), and the checkpoint holds everything else, so a training that was
killed at any moment goes on to the same bits as one that was not, with two exceptions. A clock may decide its length:
`Loop.hours` and `Loop.cpu_hours` make rates and stages depend on it. And a GPU adds in no fixed order.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from networks import distributed
from networks.joint.encoders import freeze_norms
from networks.training.optimisation import (
    OPTIMISERS,
    SCHEDULES,
    AveragedWeights,
    Group,
    clip,
    keep_freed_memory,
    warmed_up,
)
from networks.training.recorded import Learned, RecordedGradients
from networks.training.state import Learning, Log, State, write
from semslam.config import Count, Natural, Positive, Share, check_choices, check_ranges

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loop:
    """How long and by which rule weights are moved."""

    steps: Count = 1000  # steps: one for each batch
    hours: Positive | None = None  # hours: of wall-clock time, after which training and schedule end, if not before
    cpu_hours: Positive | None = None  # hours: the same in processor time of all threads, for busy machines
    optimiser: str = "adamw"  # adamw | adam (decay as an L2 penalty) | sgd (momentum 0.9)
    schedule: str = "poly"  # of the rates: poly | step (a tenth after each third) | flat (at last steep) | constant
    warmup: Natural = 0  # steps: over which learning rates rise from 0
    clip: Positive | None = None  # largest norm of the gradient; null = any
    average: Share = 0.999  # decay of the averaged weights that are validated and saved; 0 = the last weights
    freeze_norms: bool = True  # keep batch norm statistics as they are
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: cuda where there is one
    # whether a GPU records a step as a CUDA graph and repeats it: joint trainings, one process, all groups step at once
    recorded: bool = False
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 where the processor multiplies faster
    validate_every: Count = 500  # steps: between validations; the last one is at the end
    save_every: Count = 200  # steps: between checkpoints, from which a killed training goes on
    seed: Natural = 42  # of all random numbers

    def __post_init__(self) -> None:
        check_choices(self, "loop")
        check_ranges(self, "loop")
        for name, table in (("optimiser", OPTIMISERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in table:
                raise ValueError(f"loop.{name} is {getattr(self, name)!r}; known are {', '.join(table)}")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("loop.device is cuda, but PyTorch finds no CUDA device here; set it to auto or cpu")
        if self.hours is not None and self.cpu_hours is not None:
            raise ValueError("loop.hours and loop.cpu_hours are both set; choose one")


# steps: how many losses a device may owe. A GPU that is asked for the last one has nothing to do until the next step
BEHIND = {"cuda": 1}


class Objective(Protocol):
    """What is learned: data, network, loss and measure."""

    groups: list[Group]
    measure: str  # the validation figure by which the best weights are chosen; larger is better
    recipe: dict[str, Any]  # all settings: a training goes on with the same alone

    steady: bool  # whether the learner's forward waits for nothing that the device found, so that it can be recorded

    @property
    def learner(self) -> nn.Module:
        """batch -> (loss, {term: tensor} for the log, {group: examples that concern it})"""

    @property
    def network(self) -> nn.Module:
        """The part of the learner that is validated and shipped."""

    def batch(self, step: int, progress: float) -> dict[str, Any]:
        """The named tensors of a step, a function of its arguments alone (another thread calls it, a step ahead)."""

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Figures of `network` (in eval mode) on held-out data."""


def run(
    objective: Objective,
    loop: Loop,
    folder: str | Path,
    report: Callable[[dict[str, float]], None] | None = None,
) -> dict[str, float]:
    """Train until the steps or the hours are used up; continue from `folder`/last.pt if there is one.

    Writes `last.pt` (everything), `best.pt` (state dict of the averaged weights with the best validation) and
    `log.csv`. Afterwards the network holds the averaged weights of the last step, not the best ones. Under torchrun the
    processes share each batch, and the first one writes.

    Args:
        report: called with each row of the log (in the first process).

    Raises:
        ValueError: last.pt is of a training with other settings than the objective's, or not whole.

    Returns: the figures of the last validation.
    """
    training = _Training(objective, loop, Path(folder))
    state, now = training.state, training.agreed_progress()
    with ThreadPoolExecutor(1) as ahead:
        pending = ahead.submit(objective.batch, state.step, now)
        while now < 1.0:
            started = time.monotonic()
            batch = pending.result()
            # of the next step without a time limit; with one, the clock decides, and all processes share its answer
            following = now if training.hours else training.progress(state.step + 1)
            pending = ahead.submit(objective.batch, state.step + 1, following)
            row, terms = training.learn(batch, now)
            row["step_seconds"] = time.monotonic() - started
            now = training.agreed_progress()
            training.judge_and_keep(row, terms, ended=now >= 1.0, report=report)
        pending.cancel()
    objective.network.load_state_dict(training.average.state)
    objective.network.eval()
    return state.figures


class _Training:
    """A training under way: everything that its next step depends on, its clock and its files."""

    def __init__(self, objective: Objective, loop: Loop, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        keep_freed_memory()
        torch.manual_seed(loop.seed)
        self.objective, self.loop, self.folder = objective, loop, folder
        self.device = device_of(loop.device)
        if self.device.type == "cuda":
            # all batches of a stage have one shape; each new one costs 13 seconds with a limit of 10, seen on an H100
            torch.backends.cudnn.benchmark, torch.backends.cudnn.benchmark_limit = True, 4
        if loop.recorded:
            _check_recordable(objective, loop, self.device)
        objective.learner.to(self.device)
        self.optimisers = {group.name: OPTIMISERS[loop.optimiser](group) for group in objective.groups}
        self.average = AveragedWeights(objective.network, loop.average)
        self.state = State()
        self.learning = Learning(
            objective.learner, objective.groups, self.optimisers, self.average, self.state, objective.recipe
        )
        if (folder / "last.pt").is_file():
            self.learning.restore(folder / "last.pt")
            if self.state.step > loop.steps:
                raise ValueError(f"{folder}: {self.state.step} steps are learned already; loop.steps is {loop.steps}")
        self.learner = _shared(objective.learner)
        self.gradients = RecordedGradients(objective.learner, self._forward) if loop.recorded else self._gradients
        self._unread: list[tuple[dict[str, float], dict[str, Tensor]]] = []
        self.log = Log(folder / "log.csv", self.state.step)
        self.hours = loop.cpu_hours or loop.hours
        self._clock = time.process_time if loop.cpu_hours else time.monotonic
        self._began = self._clock() - self.state.seconds

    def progress(self, step: int) -> float:
        """The share of the training that is over before `step`, by this process's clock where a clock decides."""
        if self.hours is None:
            return step / self.loop.steps
        return max(step / self.loop.steps, (self._clock() - self._began) / (3600 * self.hours))

    def agreed_progress(self) -> float:
        """That of all processes now: clocks differ, and all must stop at the same step."""
        if distributed.world() == 1:
            return self.progress(self.state.step)
        progress = torch.tensor(self.progress(self.state.step), dtype=torch.float64, device=self.device)
        return float(distributed.largest(progress))

    def learn(self, batch: dict[str, Any], progress: float) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Take one step; a row of the log, and the loss and its terms in this process's share, still on the device."""
        loop, state, network = self.loop, self.state, self.objective.network
        batch = {name: v.to(self.device) if isinstance(v, Tensor) else v for name, v in batch.items()}
        self.learner.train()
        if loop.freeze_norms:
            freeze_norms(self.learner)
        loss, terms, examples = self.gradients(batch)
        factor = warmed_up(SCHEDULES[loop.schedule](progress), state.step, loop.warmup)
        _move(self.objective.groups, self.optimisers, examples, factor, loop.clip)
        self.average.update(network)
        state.step += 1
        state.seconds = self._clock() - self._began
        row = {"step": state.step, "progress": progress, "rate_factor": factor, "seconds": state.seconds}
        return row, {"loss": loss.detach(), **terms}

    def _forward(self, batch: dict[str, Any]) -> Learned:
        # recorded casts of weights must be made again in each step
        with _autocast(self.loop.precision, self.device, cached=False):
            return self.learner(batch)

    def _gradients(self, batch: dict[str, Any]) -> Learned:
        with _autocast(self.loop.precision, self.device):
            loss, terms, examples = self.learner(batch)
        # each process holds its share of the loss, and the gradients are averaged over processes
        (loss * distributed.world()).backward()
        return loss, terms, examples

    def judge_and_keep(
        self,
        row: dict[str, float],
        terms: dict[str, Tensor],
        ended: bool,
        report: Callable[[dict[str, float]], None] | None,
    ) -> None:
        """Validate and write files where a step is due to; only the first process does.

        Raises:
            ValueError: the loss is not finite; nothing was written since.
        """
        state, first = self.state, distributed.rank() == 0
        judged = ended or state.step % self.loop.validate_every == 0
        kept = ended or state.step % self.loop.save_every == 0
        rows = self._read(row, terms, behind=0 if judged or kept else BEHIND.get(self.device.type, 0))
        if judged:
            if first:
                state.figures = _validated(self.objective, self.average)
                row |= {f"val_{key}": value for key, value in state.figures.items()}
                score = state.figures[self.objective.measure]
                if math.isnan(score):
                    logger.warning(
                        "%s: the validation's %s of step %d is not a number; best.pt stays as it is",
                        *(self.folder, self.objective.measure, state.step),
                    )
                if score > state.best:
                    state.best = score
                    write(self.folder / "best.pt", self.average.state)
            distributed.barrier()
        if not first:
            return
        for read in rows:
            self.log.add(read)
            if report is not None:
                report(read)
        if kept:
            state.seconds = self._clock() - self._began
            self.log.flush()
            self.learning.save(self.folder / "last.pt")

    def _read(self, row: dict[str, float], terms: dict[str, Tensor], behind: int) -> list[dict[str, float]]:
        """The rows of all steps but the last few, with their losses, that were not read before."""
        self._unread.append((row, terms))
        count = len(self._unread) - behind
        reading, self._unread = self._unread[:count], self._unread[count:]
        for earlier, found in reading:
            told = {name: float(distributed.summed(term)) for name, term in found.items()}
            loss = told.pop("loss")
            if not math.isfinite(loss):
                where = f"the loss is {loss} at step {int(earlier['step']) - 1}"
                raise ValueError(f"{self.folder}: {where}; lower the rates or set loop.clip")
            earlier |= told
        return [earlier for earlier, _ in reading]


def _check_recordable(objective: Objective, loop: Loop, device: torch.device) -> None:
    """ValueError where a step cannot be recorded."""
    why = None
    if device.type != "cuda":
        why = "this training runs on the CPU, and only a GPU records"
    elif not objective.steady:
        why = "a step of this kind of network waits for what the device found"
    elif distributed.world() > 1:
        why = "several processes share its steps"
    elif not loop.freeze_norms:
        why = "freeze_norms is false, and norms would learn from the steps before one is recorded, too"
    elif any(group.every > 1 for group in objective.groups):
        why = "task_examples or shared_examples let gradients accumulate"
    if why is not None:
        raise ValueError(f"loop.recorded is true, but {why}; set it to false")


def _shared(learner: nn.Module) -> nn.Module:
    """`learner`, its gradients averaged over the processes where there are several."""
    if distributed.world() == 1:
        return learner
    # a process may meet no example of a task, whose head then has no gradient in it
    return nn.parallel.DistributedDataParallel(learner, find_unused_parameters=True)


def device_of(name: str) -> torch.device:
    """The device that `Loop.device` names; of several GPUs this process's own."""
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def _autocast(precision: str, device: torch.device, cached: bool = True) -> torch.autocast:
    # AVX2 and plain AVX-512 gain nothing from bfloat16. AVX512-BF16 (Zen 4) makes a step only 1.35 times as fast:
    # "auto" stays with float32 there, and bfloat16 has to be asked for
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    fast = device.type == "cuda" or has_amx()
    wanted = precision == "bfloat16" or (precision == "auto" and fast)
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted, cache_enabled=cached)


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


def _validated(objective: Objective, average: AveragedWeights) -> dict[str, float]:
    """The figures of the averaged weights; the network's own come back afterwards."""
    network = objective.network
    kept = {key: value.detach().clone() for key, value in network.state_dict().items()}
    network.load_state_dict(average.state)
    network.eval()
    with torch.no_grad():
        figures = objective.validate(network)
    network.load_state_dict(kept)
    return figures
