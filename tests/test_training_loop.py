"""The loop of trainings: its laws, on a tiny problem."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_trainings import Killed, weights_of
from torch import Tensor, nn

from networks import distributed
from networks.training import loop as loop_module
from networks.training.loop import Loop, run
from networks.training.optimisation import OPTIMISERS, SCHEDULES, AveragedWeights, Group, warmed_up

pytestmark = pytest.mark.usefixtures("one_torch_thread")


class _Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.2), nn.Linear(4, 1))

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor], dict[str, int]]:
        loss = (self.network(batch["x"])[:, 0] - batch["y"]).square().mean()
        return loss, {"square": loss.detach()}, {"all": len(batch["x"])}


class _Fit:
    """Fit a line to noise: small, random (dropout) and quick."""

    measure = "score"
    steady = False

    def __init__(self, rate: float = 0.05, every: int = 1) -> None:
        torch.manual_seed(7)
        self.learner = _Line()
        self.network = self.learner.network
        self.groups = [Group("all", list(self.network.parameters()), rate, every)]
        self.recipe: dict[str, Any] = {"out": "here", "rate": rate, "sources": ({"path": "a", "in_memory": True},)}

    def batch(self, step: int, progress: float) -> dict[str, Tensor]:
        x = torch.from_numpy(np.random.default_rng([1, step]).normal(size=(4, 3)).astype(np.float32))
        return {"x": x, "y": x.sum(1)}

    def validate(self, network: nn.Module) -> dict[str, float]:
        assert not network.training
        x = torch.eye(3)
        return {"score": -float((network(x)[:, 0] - x.sum(1)).square().mean())}


def test_adam_takes_weight_decay_for_a_penalty_and_adamw_does_not() -> None:
    """Without a loss, Adam's first step is the rate, whatever the penalty's size; AdamW shrinks in proportion."""
    moved = {}
    for name in ("adam", "adamw"):
        weight = nn.Parameter(torch.full((2, 2), 3.0))
        weight.grad = torch.zeros_like(weight)
        OPTIMISERS[name](Group("all", [weight], rate=0.1, weight_decay=0.5)).step()
        moved[name] = float(3 - weight.detach()[0, 0])
    assert moved == {"adam": pytest.approx(0.1, rel=1e-4), "adamw": pytest.approx(0.1 * 0.5 * 3, rel=1e-4)}


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
@pytest.mark.parametrize("every", [1, 10])
def test_a_killed_training_goes_on_to_the_same_bits(tmp_path: Path, optimiser: str, every: int) -> None:
    loop = Loop(steps=12, optimiser=optimiser, save_every=2, validate_every=5, warmup=3, clip=1.0, average=0.9)
    whole = _Fit(every=every)
    figures = run(whole, loop, tmp_path / "whole")

    def kill(at: int) -> Any:
        def report(row: dict[str, float]) -> None:
            if row["step"] == at:
                raise Killed

        return report

    for at in (3, 7, 8):  # between saves, at a save and in the step of one
        with pytest.raises(Killed):
            run(_Fit(every=every), loop, tmp_path / "killed", kill(at))
    again = _Fit(every=every)
    assert run(again, loop, tmp_path / "killed") == figures
    for ours, theirs in zip(weights_of(again.network), weights_of(whole.network), strict=True):
        assert torch.equal(ours, theirs)
    steps = [line.split(",")[0] for line in (tmp_path / "killed" / "log.csv").read_text().splitlines()]
    assert steps == ["step", *map(str, range(1, 13))]
    best = [torch.load(tmp_path / name / "best.pt", weights_only=True) for name in ("whole", "killed")]
    assert all(torch.equal(best[0][key], best[1][key]) for key in best[0])


def test_losses_that_are_read_a_step_late_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a GPU's are: no row is lost or out of order at validations, saves and the end."""
    loop = Loop(steps=11, save_every=4, validate_every=5)
    logs = []
    for name, behind in (("at_once", 0), ("late", 1)):
        monkeypatch.setitem(loop_module.BEHIND, "cpu", behind)
        rows: list[dict[str, float]] = []
        run(_Fit(), loop, tmp_path / name, rows.append)
        logs.append([{key: value for key, value in row.items() if "seconds" not in key} for row in rows])
    assert logs[0] == logs[1]
    assert [row["step"] for row in logs[0]] == list(range(1, 12))


def test_what_cannot_be_recorded_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"recorded is true, but this training runs on the CPU.*set it to false"):
        run(_Fit(), Loop(steps=1, recorded=True, device="cpu"), tmp_path)


def test_the_same_seed_gives_the_same_training_and_another_another(tmp_path: Path) -> None:
    ends = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        fit = _Fit()
        run(fit, Loop(steps=5, seed=seed), tmp_path / name)
        ends.append(weights_of(fit.network))
    assert all(torch.equal(a, b) for a, b in zip(ends[0], ends[1], strict=True))
    assert not all(torch.equal(a, c) for a, c in zip(ends[0], ends[2], strict=True))


def test_it_learns(tmp_path: Path) -> None:
    figures = run(_Fit(), Loop(steps=300, average=0.9), tmp_path)
    assert figures["score"] > -0.1


def test_a_damaged_or_foreign_state_is_refused(tmp_path: Path) -> None:
    (tmp_path / "last.pt").write_bytes(b"half a file")
    with pytest.raises(ValueError, match=r"last\.pt: cannot be continued from.*move it away"):
        run(_Fit(), Loop(steps=2), tmp_path)


def test_a_training_goes_on_with_its_own_settings_alone(tmp_path: Path) -> None:
    run(_Fit(), Loop(steps=2), tmp_path)
    changed = _Fit()
    changed.recipe |= {"rate": 0.1, "sources": ({"path": "b", "in_memory": False},)}
    with pytest.raises(
        ValueError, match=r"other settings: rate \(was 0.05, is 0.1\), sources\[0\].path \(was 'a', is 'b'\);"
    ):
        run(changed, Loop(steps=2), tmp_path)
    with pytest.raises(ValueError, match=r"2 steps are learned already; loop.steps is 1"):
        run(_Fit(), Loop(steps=1), tmp_path)
    moved = _Fit()
    moved.recipe |= {"out": "there", "sources": ({"path": "a", "in_memory": False},)}
    rows: list[dict[str, float]] = []
    run(moved, Loop(steps=3), tmp_path, rows.append)
    assert [row["step"] for row in rows] == [3]


def test_hours_end_a_training_and_its_schedule(tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []
    run(_Fit(), Loop(steps=10**9, hours=0.3 / 3600), tmp_path, rows.append)
    assert 1 <= len(rows) < 10**5
    assert rows[-1]["rate_factor"] < 0.5
    assert "val_score" in rows[-1]


def test_a_group_steps_once_enough_examples_concerned_it(tmp_path: Path) -> None:
    """UberNet's rhythm: with batches of 4 and 10 examples a step, the weights move at every third batch."""
    fit, states = _Fit(every=10), []
    run(fit, Loop(steps=6, average=0.0), tmp_path, lambda row: states.append(weights_of(fit.network)[0]))
    moved = [not torch.equal(a, b) for a, b in itertools.pairwise(states)]
    assert moved == [False, True, False, False, True]


def test_accumulated_steps_are_those_of_the_mean_gradient(tmp_path: Path) -> None:
    """Three batches and one step are one batch of all their examples (dropout off)."""

    class Large(_Fit):
        def batch(self, step: int, progress: float) -> dict[str, Tensor]:
            parts = [super(Large, self).batch(i, progress) for i in range(3)]
            return {key: torch.cat([part[key] for part in parts]) for key in ("x", "y")}

    small, large = _Fit(rate=0.1, every=12), Large(rate=0.1)
    for fit, steps, name in ((small, 3, "small"), (large, 1, "large")):
        fit.network[1].p = 0.0
        exact = Loop(steps=steps, optimiser="sgd", schedule="constant", average=0.0, precision="float32")
        run(fit, exact, tmp_path / name)
    for ours, theirs in zip(weights_of(small.network), weights_of(large.network), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_loss_that_is_no_number_stops_with_advice(tmp_path: Path) -> None:
    class Broken(_Fit):
        def batch(self, step: int, progress: float) -> dict[str, Tensor]:
            return {"x": torch.full((1, 3), torch.nan), "y": torch.zeros(1)}

    with pytest.raises(ValueError, match=r"the loss is nan at step 0; lower the rates or set loop\.clip"):
        run(Broken(), Loop(steps=1), tmp_path)


def test_a_loss_that_is_no_number_in_one_process_stops_them_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "summed", lambda value: value.detach() + torch.inf)  # another's loss
    with pytest.raises(ValueError, match="the loss is inf at step 0"):
        run(_Fit(), Loop(steps=1), tmp_path)


def test_schedules_fall_from_one_and_settings_are_checked() -> None:
    for schedule in SCHEDULES.values():
        values = [schedule(p) for p in np.linspace(0, 1, 50)]
        assert values[0] == 1
        assert values == sorted(values, reverse=True)
    assert SCHEDULES["poly"](1.0) == 0
    assert np.isclose(SCHEDULES["poly"](0.5), 0.5**0.9)
    assert [round(SCHEDULES["step"](p), 3) for p in (0.3, 0.5, 0.9)] == [1, 0.1, 0.01]
    assert [round(SCHEDULES["flat"](p), 3) for p in (0, 0.6, 0.8, 1)] == [1, 1, 0.5, 0]
    assert [warmed_up(1.0, step, 4) for step in range(5)] == [0.25, 0.5, 0.75, 1, 1]
    with pytest.raises(ValueError, match=r"loop\.optimiser is 'lion'; known are adamw, adam, sgd"):
        Loop(optimiser="lion")
    with pytest.raises(ValueError, match=r"loop\.schedule"):
        Loop(schedule="cosine")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="PyTorch finds no CUDA device here; set it to auto or cpu"):
            Loop(device="cuda")


def test_averaged_weights_follow_and_forget_the_start() -> None:
    module = nn.Linear(2, 2)
    average = AveragedWeights(module, 0.9)
    with torch.no_grad():
        module.weight.fill_(5.0)
    for _ in range(100):
        average.update(module)
    torch.testing.assert_close(average.state["weight"], module.weight.detach(), rtol=1e-3, atol=1e-3)
