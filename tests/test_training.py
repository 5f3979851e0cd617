"""Training: the loop's laws on a tiny problem, then the joint network's regimes on tiny images."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from networks import losses
from networks.augmentation import Augmentation, Sample, augmented, recolored
from networks.inference.labelling import (
    Teacher,
    check_teachers,
    label_folder,
    label_image,
    load_teacher,
    soft_label_folder,
    soft_labels,
)
from networks.joint import checkpoints
from networks.joint.encoders import ENCODERS
from networks.joint.network import TASKS, JointNetwork
from networks.joint.refinenet import MobileRefineNet, ResNetRefineNet
from networks.training import device_views, regimes
from networks.training.data import Samples, Source, camera_of, class_weights, collated, drawn
from networks.training.joint import JointLearner, JointObjective, JointTraining, Stage, train
from networks.training.loop import Loop, run
from networks.training.optimisation import OPTIMISERS, SCHEDULES, AveragedWeights, Group, warmed_up
from networks.training.validation import scored
from semslam.images import read_color, read_labels
from semslam.labels import label_set
from sequences.images.labelled_images import NYU_CAMERA

# ------------------------------------------------------------------------------------------- the loop


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

    def __init__(self, rate: float = 0.05, every: int = 1) -> None:
        torch.manual_seed(7)
        self.learner = _Line()
        self.network = self.learner.network
        self.groups = [Group("all", list(self.network.parameters()), rate, every)]

    def batch(self, step: int, progress: float) -> dict[str, Tensor]:
        x = torch.from_numpy(np.random.default_rng([1, step]).normal(size=(4, 3)).astype(np.float32))
        return {"x": x, "y": x.sum(1)}

    def validate(self, network: nn.Module) -> dict[str, float]:
        assert not network.training
        x = torch.eye(3)
        return {"score": -float((network(x)[:, 0] - x.sum(1)).square().mean())}


class _Killed(Exception):
    pass


def _weights(network: nn.Module) -> list[Tensor]:
    return [value.clone() for value in network.state_dict().values()]


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
                raise _Killed

        return report

    for at in (3, 7, 8):  # between saves, at a save and in the step of one
        with pytest.raises(_Killed):
            run(_Fit(every=every), loop, tmp_path / "killed", kill(at))
    again = _Fit(every=every)
    assert run(again, loop, tmp_path / "killed") == figures
    for ours, theirs in zip(_weights(again.network), _weights(whole.network), strict=True):
        assert torch.equal(ours, theirs)
    steps = [line.split(",")[0] for line in (tmp_path / "killed" / "log.csv").read_text().splitlines()]
    assert steps == ["step", *map(str, range(1, 13))]
    best = [torch.load(tmp_path / name / "best.pt", weights_only=True) for name in ("whole", "killed")]
    assert all(torch.equal(best[0][key], best[1][key]) for key in best[0])


def test_the_same_seed_gives_the_same_training_and_another_another(tmp_path: Path) -> None:
    ends = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        fit = _Fit()
        run(fit, Loop(steps=5, seed=seed), tmp_path / name)
        ends.append(_weights(fit.network))
    assert all(torch.equal(a, b) for a, b in zip(ends[0], ends[1], strict=True))
    assert not all(torch.equal(a, c) for a, c in zip(ends[0], ends[2], strict=True))


def test_it_learns(tmp_path: Path) -> None:
    figures = run(_Fit(), Loop(steps=300, average=0.9), tmp_path)
    assert figures["score"] > -0.1


def test_a_damaged_or_foreign_state_is_refused(tmp_path: Path) -> None:
    (tmp_path / "last.pt").write_bytes(b"half a file")
    with pytest.raises(ValueError, match=r"last\.pt: cannot be continued from.*move it away"):
        run(_Fit(), Loop(steps=2), tmp_path)


def test_hours_end_a_training_and_its_schedule(tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []
    run(_Fit(), Loop(steps=10**9, hours=0.3 / 3600), tmp_path, rows.append)
    assert 1 <= len(rows) < 10**5
    assert rows[-1]["rate_factor"] < 0.5
    assert "val_score" in rows[-1]


def test_a_group_steps_once_enough_examples_concerned_it(tmp_path: Path) -> None:
    """UberNet's rhythm: with batches of 4 and 10 examples a step, the weights move at every third batch."""
    fit, states = _Fit(every=10), []
    run(fit, Loop(steps=6, average=0.0), tmp_path, lambda row: states.append(_weights(fit.network)[0]))
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
        run(fit, Loop(steps=steps, optimiser="sgd", schedule="constant", average=0.0), tmp_path / name)
    for ours, theirs in zip(_weights(small.network), _weights(large.network), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_loss_that_is_no_number_stops_with_advice(tmp_path: Path) -> None:
    class Broken(_Fit):
        def batch(self, step: int, progress: float) -> dict[str, Tensor]:
            return {"x": torch.full((1, 3), torch.nan), "y": torch.zeros(1)}

    with pytest.raises(ValueError, match=r"the loss is nan at step 0; lower the rates or set loop\.clip"):
        run(Broken(), Loop(steps=1), tmp_path)


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


# ------------------------------------------------------------------------------------------- views


def _sample(rng: np.random.Generator, height: int = 48, width: int = 64) -> Sample:
    labels = rng.integers(0, 5, (height, width)).astype(np.uint8)
    normals = np.zeros((height, width, 3), np.float32)
    normals[:, : width // 2] = (0.6, 0.0, -0.8)
    normals[:, width // 2 :] = (-0.6, 0.0, -0.8)
    color = np.full((height, width, 3), 100, np.uint8)
    return Sample(color, labels, np.full((height // 2, width // 2), 3.0, np.float32), normals)


def _batch(views: list[Sample]) -> dict[str, Any]:
    return collated([device_views.as_tensors(view, torch.device("cpu")) for view in views], 4)


def test_zooming_divides_depth_and_resolution_does_not() -> None:
    sample = _sample(np.random.default_rng(0))
    for zoom, resolution in ((2.0, 1.0), (0.5, 1.0), (1.0, 0.5), (1.5, 0.5)):
        config = Augmentation((24, 32), (zoom, zoom), resolution, mirror=False)
        depth = augmented(sample, np.random.default_rng(1), config).depth
        assert np.allclose(depth[depth > 0], 3.0 / zoom)
        assert (depth > 0).any()


def test_mirroring_negates_the_normals_x_and_nothing_else() -> None:
    sample = _sample(np.random.default_rng(0))
    config = Augmentation((48, 64), (1.0, 1.0))
    views = [augmented(sample, np.random.default_rng(seed), config) for seed in range(8)]
    mirrored = [not np.array_equal(v.labels, sample.labels) for v in views]
    assert True in mirrored
    assert False in mirrored
    for view, flipped in zip(views, mirrored, strict=True):
        if flipped:
            assert np.array_equal(view.labels[:, ::-1], sample.labels)
            # a wall that faced left faces right, and lies on the other side: the picture is the same again
        assert np.allclose(view.normals, sample.normals)


def test_images_of_a_view_stay_on_each_other() -> None:
    """A square that colour, labels and depth share is in the same place in every view, whatever its scale."""
    color, labels = np.zeros((96, 128, 3), np.uint8), np.zeros((96, 128), np.uint8)
    depth = np.ones((48, 64), np.float32)
    color[40:80, 60:100], labels[40:80, 60:100], depth[20:40, 30:50] = 255, 1, 2.0
    for seed in range(20):
        view = augmented(Sample(color, labels, depth), np.random.default_rng(seed), Augmentation((64, 64), (0.5, 2.0)))
        inside = view.color[..., 0] > 200
        known = view.labels != 255
        assert (inside[known] == (view.labels[known] == 1)).mean() > 0.96
        ratio = view.depth[view.depth > 0]
        assert (inside[view.depth > 0] == (ratio > 1.5 * ratio.min())).mean() > 0.93 or not inside.any() or inside.all()


def test_what_lies_outside_the_image_is_unknown() -> None:
    sample = _sample(np.random.default_rng(0))
    view = augmented(sample, np.random.default_rng(0), Augmentation((96, 128), (0.8, 0.8)))
    inside = view.labels != 255
    assert np.isclose(inside.mean(), (48 * 0.8 / 96) * (64 * 0.8 / 128), rtol=0.05)
    assert (view.depth > 0).mean() <= inside.mean() * 1.06
    assert view.color.shape == (96, 128, 3)


@pytest.mark.parametrize("color", [0.0, 0.35])
def test_a_device_makes_the_views_that_the_processor_makes(color: float) -> None:
    """Shrunk, enlarged, padded, mirrored, with depth smaller than the image: labels, depth and normals are equal."""
    rng = np.random.default_rng(0)
    smooth = cv2.GaussianBlur(rng.integers(0, 256, (120, 160, 3)).astype(np.uint8), (0, 0), 2)
    labels = rng.integers(0, 40, (120, 160)).astype(np.uint8)
    depth = rng.uniform(0.5, 5, (60, 80)).astype(np.float32)
    soft = rng.integers(0, 256, (30, 40, 5)).astype(np.uint8)
    sample = Sample(smooth, labels, depth, rng.normal(size=(60, 80, 3)).astype(np.float32), soft)
    other = replace(sample, labels=None, depth=rng.uniform(0.5, 5, (120, 160)).astype(np.float32))
    kept = device_views.DeviceSamples([[sample, other], [sample]], torch.device("cpu"))
    assert [len(places) for places in kept.places] == [2, 1]
    for resolution in (0.5, 1.0):
        view = Augmentation((48, 64), (0.5, 3.0), resolution, color=color)
        samples = [(sample, other, sample)[seed % 3] for seed in range(30)]
        places = [(*kept.places[0], *kept.places[1])[seed % 3] for seed in range(30)]
        made = kept.views(places, [np.random.default_rng(seed) for seed in range(30)], view)
        for seed, ours in enumerate(made):
            theirs = augmented(samples[seed], np.random.default_rng(seed), view)
            for name in ("labels", "depth", "normals", "soft_labels"):
                assert (getattr(ours, name) is None) == (getattr(theirs, name) is None)
                if getattr(theirs, name) is not None:
                    assert np.array_equal(getattr(ours, name).numpy(), getattr(theirs, name)), (seed, name)
            apart = np.abs(ours.color.numpy().astype(int) - theirs.color)
            assert apart.max() <= (3 if color else 1), seed  # grey levels: OpenCV rounds some halves up, others to even
            assert apart.mean() < (0.3 if color else 0.15), seed


def test_recolouring_by_nothing_changes_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 255, (8, 8, 3)).astype(np.uint8)
    assert np.array_equal(recolored(image, np.zeros(6)), image)
    assert not np.array_equal(recolored(image, np.full(6, 0.3)), image)


def test_every_image_is_drawn_once_an_epoch() -> None:
    sets = [list(range(5)), list(range(10, 13))]
    epochs = [[drawn(sets, p, 3) for p in range(e * 8, e * 8 + 8)] for e in range(2)]  # type: ignore[arg-type]
    assert sorted(epochs[0]) == sorted(epochs[1]) == [0, 1, 2, 3, 4, 10, 11, 12]
    assert epochs[0] != epochs[1]


def test_a_batch_fills_what_is_missing_and_counts_what_is_there() -> None:
    whole = _sample(np.random.default_rng(0))
    view = augmented(whole, np.random.default_rng(0), Augmentation((32, 32), (1.0, 1.0)))
    batch = _batch([view, Sample(view.color, None, view.depth), Sample(view.color, view.labels)])
    assert batch["examples"] == {"segmentation": 2, "depth": 2, "normals": 1}
    assert batch["image"].shape == (3, 3, 32, 32)
    assert batch["segmentation"].shape == batch["depth"].shape == (3, 8, 8)
    assert (batch["segmentation"][1] == 255).all()
    assert (batch["depth"][2] == 0).all()
    assert np.array_equal(batch["segmentation"][0], view.labels[2::4, 2::4])


def test_soft_labels_stay_on_the_labels_in_every_view() -> None:
    """A teacher that is sure of the truth says the same as the labels, wherever the view shows the image."""
    labels = np.zeros((96, 128), np.uint8)
    labels[40:80, 60:100] = 1
    soft = 255 * np.eye(3, dtype=np.uint8)[labels[::2, ::2]]
    sample = Sample(np.zeros((96, 128, 3), np.uint8), labels, soft_labels=soft)
    views = [augmented(sample, np.random.default_rng(s), Augmentation((64, 64), (0.5, 2.0))) for s in range(20)]
    batch = _batch([*views, Sample(views[0].color)])
    assert batch["examples"]["segmentation"] == 20
    taught, known = batch["soft_labels"].sum(1) > 0, batch["segmentation"] != 255
    assert (taught == known).float().mean() > 0.98
    assert not taught[20].any()
    both = taught & known
    assert (batch["soft_labels"].argmax(1) == batch["segmentation"])[both].float().mean() > 0.96


def test_soft_labels_that_are_none_are_named(folder: Path, tmp_path: Path) -> None:
    source = Source(str(folder), "both", soft_labels=str(tmp_path))
    for name in ("000", "001"):
        np.save(tmp_path / f"{name}.npy", np.full((6, 8, 40), 6, np.uint8))
    assert Samples(source, 40)[0].soft_labels.shape == (6, 8, 40)
    np.save(tmp_path / "001.npy", np.ones((6, 8, 13), np.uint8))
    with pytest.raises(ValueError, match=r"001\.npy: it holds uint8 \(6, 8, 13\); expected uint8"):
        Samples(source, 40)
    for damaged in (b"half", b"", b"PK\x03\x04"):
        (tmp_path / "001.npy").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"001\.npy: not a whole NumPy file"):
            Samples(source, 40)
    (tmp_path / "001.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"001\.npy: missing; `semslam label --soft` writes"):
        Samples(source, 40)


def test_soft_labels_and_their_weight_go_together(folder: Path) -> None:
    plain, taught = Source(str(folder)), Source(str(folder), soft_labels="soft")
    with pytest.raises(ValueError, match="no source has soft_labels"):
        JointTraining("out", (plain,), plain, distillation=0.5)
    with pytest.raises(ValueError, match="distillation above 0, it is 0"):
        JointTraining("out", (plain, taught), plain)
    with pytest.raises(ValueError, match="soft: has soft_labels, and teachers look at each view"):
        JointTraining("out", (Source("soft", soft_labels="x"),), plain, teachers=("a",), distillation=1.0)


def test_a_process_whose_images_are_not_taught_takes_part_in_the_mean(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes that sum over all of them wait for each other: each must sum as often as the others."""
    sums: list[Tensor] = []
    monkeypatch.setattr(losses, "summed", lambda value: sums.append(value) or value)
    source = Source(str(folder), soft_labels="soft")
    config = JointTraining("out", (source,), source, distillation=0.5)
    learner = JointLearner(nn.Identity(), nn.Identity(), None, config)  # type: ignore[arg-type]
    scores, hard = torch.randn(1, 3, 4, 4), {"segmentation": torch.zeros(1, 4, 4, dtype=torch.long)}
    learner.segmentation_loss(scores, hard | {"soft_labels": torch.rand(1, 3, 4, 4)})
    with_soft = len(sums)
    loss = learner.segmentation_loss(scores, hard)
    assert len(sums) == 2 * with_soft and loss == losses.cross_entropy(scores, hard["segmentation"])


def test_rare_classes_weigh_more_and_pixels_one_on_average() -> None:
    labels = np.zeros((10, 10), np.uint8)
    labels[0] = 1
    labels[9] = 255
    weights = class_weights([Sample(np.zeros((10, 10, 3), np.uint8), labels)], 3, 0.5)
    assert weights[2] == 0  # never seen
    assert np.isclose(weights[1] / weights[0], np.sqrt(8))
    assert np.isclose((weights[0] * 80 + weights[1] * 10) / 90, 1)


# ------------------------------------------------------------------------------------------- the joint network


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images 64x48 whose left half is a near wall and whose right half is a far floor."""
    root = tmp_path_factory.mktemp("images")
    for kind in ("color", "label40", "depth"):
        (root / kind).mkdir()
    rng = np.random.default_rng(0)
    names = [f"{i:03d}" for i in range(8)]
    for name in names:
        edge = int(rng.integers(20, 44))
        color = rng.integers(0, 60, (48, 64, 3)).astype(np.uint8)
        color[:, edge:] += 150
        labels = np.full((48, 64), 1, np.uint8)
        labels[:, edge:] = 2
        depth = np.full((48, 64), 1000, np.uint16)
        depth[:, edge:] = 3000
        cv2.imwrite(str(root / "color" / f"{name}.png"), color)
        cv2.imwrite(str(root / "label40" / f"{name}.png"), labels)
        cv2.imwrite(str(root / "depth" / f"{name}.png"), depth)
    (root / "train.txt").write_text("\n".join(names[:6]))
    (root / "both.txt").write_text("\n".join(names[:2]))
    (root / "rest.txt").write_text("\n".join(names[2:6]))
    (root / "val.txt").write_text("\n".join(names[6:]))
    return root


def _config(folder: Path, out: Path, **settings: Any) -> JointTraining:
    defaults: dict[str, Any] = {
        "sources": (Source(str(folder)),),
        "validation": Source(str(folder), "val"),
        "stages": (Stage(0.5, (32, 32), (0.8, 1.2), 8), Stage(1.0, (32, 40), (0.8, 1.2), 4)),
        "batch": 2,
        "loop": Loop(steps=3, warmup=1, average=0.5, save_every=2),
    }
    return JointTraining(out=str(out), **(defaults | settings))


@pytest.mark.parametrize("views", ["processor", "device"])
def test_the_joint_network_trains_resumes_and_ships(folder: Path, tmp_path: Path, views: str) -> None:
    config = _config(folder, tmp_path / "a", class_balance=0.3, frozen_layers=1, views=views)
    whole = train(config)
    assert {"miou", "rmse", "score"} <= whole.keys()
    network, metadata = checkpoints.load(tmp_path / "a" / "network.safetensors")
    assert metadata["label_sets"] == {"nyu40": [0, 40]}
    assert metadata["input_size"] == [48, 64]
    assert metadata["figures"] == whole

    def kill(row: dict[str, float]) -> None:
        if row["step"] == 3:
            raise _Killed

    with pytest.raises(_Killed):
        train(replace(config, out=str(tmp_path / "b")), kill)
    assert train(replace(config, out=str(tmp_path / "b"))) == whole
    again, _ = checkpoints.load(tmp_path / "b" / "network.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(_weights(network), _weights(again), strict=True))


def test_batches_made_on_a_device_are_those_of_the_loader(folder: Path, tmp_path: Path) -> None:
    """Two sources, one without labels, and the step's own random numbers: only colours may differ, by rounding."""
    sources = (Source(str(folder), "both"), Source(str(folder), "rest", tasks=("depth",)))
    config = _config(folder, tmp_path, sources=sources, batch=4)
    loaded, made = (
        JointObjective(
            replace(config, views=views),
            [Samples(source, 40) for source in sources],
            Samples(config.validation, 40),
        ).batch(3, 0.9)
        for views in ("processor", "device")
    )
    assert made.keys() == loaded.keys()
    assert made["examples"] == loaded["examples"] == {"segmentation": 1, "depth": 4, "normals": 0}
    for name in ("segmentation", "depth", "normals"):
        assert torch.equal(made[name], loaded[name])
    assert made["image"].stride() == loaded["image"].stride()
    assert (made["image"] - loaded["image"]).abs().max() < 3.1 / (255 * 0.224)  # three grey levels, normalised
    with pytest.raises(ValueError, match="views is 'gpu'; known are auto, processor, device"):
        replace(config, views="gpu")


def test_the_joint_network_learns_what_is_plain_to_see(folder: Path, tmp_path: Path) -> None:
    config = _config(folder, tmp_path, decoder_rate=2e-3, loop=Loop(steps=20, average=0.5), color=0.0)
    rows: list[dict[str, float]] = []
    train(config, rows.append)
    for task in ("segmentation", "depth"):
        assert sum(row[task] for row in rows[-4:]) < 0.7 * sum(row[task] for row in rows[:4])


def _moved(objective: JointObjective, batch: dict[str, Any], out: Path) -> set[str]:
    """The groups whose weights one step with this batch changes."""
    before = {g.name: [p.detach().clone() for p in g.parameters] for g in objective.groups}
    objective.batch = lambda step, progress: batch  # type: ignore[method-assign]
    objective.validate = lambda network: {"score": 0.0}  # type: ignore[method-assign]
    raw: dict[str, list[Tensor]] = {}

    def look(row: dict[str, float]) -> None:
        raw.update({g.name: [p.detach().clone() for p in g.parameters] for g in objective.groups})

    run(objective, Loop(steps=1), out, look)
    return {n for n in raw if any(not torch.equal(a, b) for a, b in zip(raw[n], before[n], strict=True))}


def test_a_head_steps_only_when_its_labels_are_there(folder: Path, tmp_path: Path) -> None:
    """BlitzNet's rhythm: of a batch with depth alone the segmentation head learns nothing."""
    sources = (Source(str(folder), "both"), Source(str(folder), "rest", tasks=("depth",)))
    config = _config(folder, tmp_path / "x", sources=sources)
    objective = JointObjective(config, [Samples(s, 40) for s in sources], [])
    rest = objective.sets[1]
    assert all(sample.labels is None and sample.depth is not None for sample in rest)
    view = [augmented(s, np.random.default_rng(0), Augmentation((32, 32), (1, 1))) for s in (rest[0], rest[1])]
    assert _moved(objective, _batch(view), tmp_path / "depth") == {"encoder", "decoder", "head_depth"}
    both = objective.sets[0]
    objective = JointObjective(config, [both, rest], [])
    view = [augmented(s, np.random.default_rng(0), Augmentation((32, 32), (1, 1))) for s in (both[0], rest[1])]
    everything = {"encoder", "decoder", "head_depth", "head_segmentation"}
    assert _moved(objective, _batch(view), tmp_path / "both") == everything


def test_teachers_tell_classes_and_depth_of_images_that_have_neither(folder: Path, tmp_path: Path) -> None:
    """What is learned from them is nothing where the network says the same, and moves all heads where it does not."""
    teacher = JointNetwork(40, layers=ENCODERS["efficientnet_lite2"]).eval()
    checkpoints.save(tmp_path / "teacher.safetensors", teacher, half=False)
    config = _config(folder, tmp_path / "x", teachers=(str(tmp_path / "teacher.safetensors"),), distillation=1.0)
    samples = Samples(config.sources[0], 40)
    assert checkpoints.load(tmp_path / "teacher.safetensors")[0].layers == teacher.layers
    objective = JointObjective(config, [samples], [])
    batch = _batch([augmented(samples[i], np.random.default_rng(i), Augmentation((32, 32), (1, 1))) for i in (0, 1)])
    batch |= {"segmentation": torch.full_like(batch["segmentation"], 255), "depth": torch.zeros_like(batch["depth"])}
    batch["examples"] = dict.fromkeys(TASKS, 0)
    assert _moved(objective, batch, tmp_path / "one") == {"encoder", "decoder", "head_depth", "head_segmentation"}
    itself = replace(config, backbone="efficientnet_lite2", weights=str(tmp_path / "teacher.safetensors"))
    learner = JointObjective(itself, [samples], []).learner
    _, terms, _ = learner.eval()(batch)
    assert float(terms["depth"]) < 1e-6


def test_a_learner_keeps_its_network_once_compiled_or_not(folder: Path, tmp_path: Path) -> None:
    config = _config(folder, tmp_path)
    for compiled in (False, True):
        network = JointNetwork(40)
        learner = JointLearner(network, nn.Identity(), None, replace(config, compiled=compiled))
        assert set(learner.state_dict()) == {f"network.{name}" for name in network.state_dict()}


def test_ubernets_groups_wait_for_their_examples(folder: Path, tmp_path: Path) -> None:
    config = _config(folder, tmp_path, task_examples=10, shared_examples=30)
    objective = JointObjective(config, [Samples(config.sources[0], 40)], [])
    assert {g.name: g.every for g in objective.groups} == {
        "encoder": 30, "decoder": 30, "head_segmentation": 10, "head_depth": 10,
    }  # fmt: skip


def test_a_teacher_labels_a_folder_and_its_labels_are_learned_from(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = JointNetwork(40)
    labelling = Teacher(teacher, label_set("nyu40"))
    assert len(list(label_folder(labelling, folder, tmp_path / "labels"))) == 8
    assert not list(label_folder(labelling, folder, tmp_path / "labels"))  # a killed run goes on
    samples = Samples(Source(str(folder), "rest", labels=str(tmp_path / "labels")), 40)
    with torch.no_grad():
        teacher.eval()
        assert scored(teacher, samples)["pixel_accuracy"] == 1.0  # they are the teacher's own


def test_a_teacher_is_loaded_by_what_its_file_holds(tmp_path: Path) -> None:
    for teacher in (ResNetRefineNet(50, 6), MobileRefineNet(6)):
        torch.save({"state_dict": teacher.state_dict()}, tmp_path / "teacher.ckpt")
        loaded = load_teacher(tmp_path / "teacher.ckpt")
        assert type(loaded.network) is type(teacher) and loaded.input_size is None and loaded.label_set.name == "kitti6"
        state = loaded.network.state_dict()
        assert all(torch.equal(state[key], value) for key, value in teacher.state_dict().items())
    checkpoints.save(tmp_path / "joint.safetensors", JointNetwork(6), {"input_size": [24, 32]})
    loaded = load_teacher(tmp_path / "joint.safetensors")
    assert isinstance(loaded.network, JointNetwork) and loaded.input_size == (24, 32)
    torch.save({"clf_conv.weight": torch.zeros(6, 256, 3, 3)}, tmp_path / "half.ckpt")
    with pytest.raises(ValueError, match=r"half\.ckpt: a ResNet whose third layer has 0 blocks"):
        load_teacher(tmp_path / "half.ckpt")


def test_a_teacher_of_classes_that_have_no_set_here_is_refused(tmp_path: Path) -> None:
    """PASCAL VOC's 21 classes, written as ids of NYU's 40, would be learned as truth."""
    torch.save(MobileRefineNet(21).state_dict(), tmp_path / "voc.ckpt")
    with pytest.raises(ValueError, match=r"voc\.ckpt: a teacher of 21 classes, which are none of the label sets here"):
        load_teacher(tmp_path / "voc.ckpt")
    with pytest.raises(ValueError, match="none of the label sets here"):
        load_teacher(tmp_path / "voc.ckpt", "nyu40")


@pytest.mark.parametrize(("classes", "outputs"), [("kitti6", 6), ("nyu40", 40), ("kitti6", 46)])
def test_a_teachers_labels_are_in_the_file_ids_of_its_set(
    folder: Path, tmp_path: Path, classes: str, outputs: int
) -> None:
    """KITTI's files count from 0, NYU's from 1; of a network of both sets only the chosen one's outputs compete."""
    network = JointNetwork(outputs)
    checkpoints.save(tmp_path / "teacher.safetensors", network)
    teacher = load_teacher(tmp_path / "teacher.safetensors", classes)
    assert list(label_folder(teacher, folder, tmp_path / "labels", "val")) == [("006", None), ("007", None)]
    expected = label_image(teacher, read_color(folder / "color" / "006.png"))
    stored = cv2.imread(str(tmp_path / "labels" / "006.png"), cv2.IMREAD_UNCHANGED)
    assert expected.max() < len(label_set(classes))
    np.testing.assert_array_equal(stored, expected + (1 if classes == "nyu40" else 0))
    np.testing.assert_array_equal(read_labels(tmp_path / "labels" / "006.png", classes), expected)


def test_teachers_write_probabilities_that_a_training_learns_from(folder: Path, tmp_path: Path) -> None:
    """Those of an image and its mirror image are each other's, and two equal teachers say what one does."""
    torch.manual_seed(1)
    teacher = Teacher(JointNetwork(40), label_set("nyu40"))
    assert list(soft_label_folder([teacher, teacher], folder, tmp_path / "soft", "val")) == [
        ("006", None),
        ("007", None),
    ]
    color = read_color(folder / "color" / "006.png")
    soft = np.load(tmp_path / "soft" / "006.npy")
    assert soft.shape == (12, 16, 40) and soft.dtype == np.uint8
    assert np.abs(soft.sum(2, dtype=int) - 255).max() <= 20  # rounded
    np.testing.assert_array_equal(soft, soft_labels([teacher], color))
    np.testing.assert_array_equal(soft[:, ::-1], soft_labels([teacher], np.ascontiguousarray(color[:, ::-1])))
    source = Source(str(folder), "val", ("depth",), soft_labels=str(tmp_path / "soft"))
    loop = Loop(steps=1, validate_every=1)
    config = JointTraining(str(tmp_path / "run"), (source,), Source(str(folder), "val"), batch=2, distillation=1.0,
                           stages=(Stage(crop=(32, 32)),), loop=loop)  # fmt: skip
    rows: list[dict[str, float]] = []
    train(config, rows.append)
    assert rows[0]["segmentation"] > 0
    with pytest.raises(ValueError, match="the same classes; theirs are nyu40, kitti6"):
        soft_label_folder([teacher, Teacher(JointNetwork(6), label_set("kitti6"))], folder, tmp_path / "none")


def test_labels_of_two_teachers_are_not_mixed(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"1")
    other.write_bytes(b"2")
    check_teachers(tmp_path / "out", [one, other], "nyu40", soft=True)
    check_teachers(tmp_path / "out", [other, one], "nyu40", soft=True)  # a killed run goes on
    for weights, classes, soft in (
        ([one], "nyu40", True),
        ([one, other], "nyu40", False),
        ([one, other], "kitti6", True),
    ):
        with pytest.raises(ValueError, match="holds labels of other teachers or classes"):
            check_teachers(tmp_path / "out", weights, classes, soft)


def test_an_unreadable_image_does_not_end_a_teachers_work(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "folder"
    shutil.copytree(folder, broken)
    first = sorted((broken / "color").iterdir())[0]
    first.write_bytes(first.read_bytes()[:100])
    found = dict(label_folder(Teacher(JointNetwork(40), label_set("nyu40")), broken, tmp_path / "labels"))
    assert "truncated" in (found.pop(first.stem) or "") and len(found) == 7 and set(found.values()) == {None}


def test_other_labels_reach_the_training_from_every_form_of_source(folder: Path, tmp_path: Path) -> None:
    """A folder, a list file: the labels that a source names take the place of its own, and are never left out."""
    names = sorted(path.stem for path in (folder / "color").iterdir())
    (tmp_path / "labels").mkdir()
    for name in names:
        cv2.imwrite(str(tmp_path / "labels" / f"{name}.png"), np.full((48, 64), 7, np.uint8))
    lines = [f"{folder}/color/{p.name} {folder}/label40/{p.stem}.png" for p in sorted((folder / "color").iterdir())]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    for path in (str(folder), str(tmp_path / "list.txt")):
        samples = Samples(Source(path, None, labels=str(tmp_path / "labels")), 40)
        assert all((sample.labels == 6).all() for sample in samples)
    (tmp_path / "labels" / f"{names[0]}.png").unlink()
    with pytest.raises(FileNotFoundError, match=f"no {names[0]}.png among its 7 label images"):
        Samples(Source(str(tmp_path / "list.txt"), None, labels=str(tmp_path / "labels")), 40)


def test_a_training_on_labels_that_are_all_void_ends_with_one_line(folder: Path, tmp_path: Path) -> None:
    for path in (folder / "color").iterdir():
        (tmp_path / "void").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "void" / f"{path.stem}.png"), np.zeros((48, 64), np.uint8))
    with pytest.raises(ValueError, match="all pixels of the 8 label images looked at are void"):
        Samples(Source(str(folder), None, labels=str(tmp_path / "void")), 40)


def test_the_camera_of_a_source_is_the_one_named_or_recorded_or_else_nyus(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "folder"
    shutil.copytree(folder, copy)
    assert camera_of(Source(str(copy)), 64, 48).fx == NYU_CAMERA.fx
    (copy / "camera.yaml").write_text("{width: 640, height: 480, fx: 585, fy: 585, cx: 320, cy: 240}")
    assert camera_of(Source(str(copy)), 64, 48).fx == pytest.approx(58.5)
    assert camera_of(Source(str(copy), camera=(50, 50, 32, 24)), 64, 48).fx == 50


def test_a_teacher_sees_images_at_the_size_that_it_was_trained_for(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = JointNetwork(40).eval()
    half, area = Teacher(teacher, label_set("nyu40"), resolution=0.5), Teacher(teacher, label_set("nyu40"), 0, (24, 32))
    assert list(label_folder(half, folder, tmp_path / "half", "val"))
    assert list(label_folder(area, folder, tmp_path / "area", "val"))
    for file in (tmp_path / "half").iterdir():
        assert file.read_bytes() == (tmp_path / "area" / file.name).read_bytes()


def test_two_label_sets_share_one_network(folder: Path, tmp_path: Path) -> None:
    """NYU's 40 classes and KITTI's 6 behind them: 46 outputs."""
    kitti = tmp_path / "kitti"
    (kitti / "color").mkdir(parents=True)
    (kitti / "label6").mkdir()
    rng = np.random.default_rng(0)
    cv2.imwrite(str(kitti / "color" / "0.png"), rng.integers(0, 255, (48, 64, 3)).astype(np.uint8))
    road = np.zeros((48, 64, 3), np.uint8)
    road[24:] = (128, 64, 128)
    cv2.imwrite(str(kitti / "label6" / "0.png"), road)
    sources = (Source(str(folder)), Source(str(kitti), None, classes="kitti6", first_output=40))
    config = _config(folder, tmp_path / "out", sources=sources, num_classes=46, loop=Loop(steps=2))
    second = Samples(sources[1], 46)
    assert set(np.unique(second[0].labels)) == {42, 255}
    figures = train(config)  # validated on NYU's outputs alone
    assert 0 <= figures["miou"] <= 1
    _, metadata = checkpoints.load(tmp_path / "out" / "network.safetensors")
    assert metadata["label_sets"] == {"nyu40": [0, 40], "kitti6": [40, 46]}
    with pytest.raises(ValueError, match="has a label for output 42, the network has 40 outputs"):
        Samples(sources[1], 40)


def test_a_third_task_learns_normals_computed_from_depth(folder: Path, tmp_path: Path) -> None:
    config = _config(folder, tmp_path, tasks=("segmentation", "depth", "normals"), loop=Loop(steps=2))
    rows: list[dict[str, float]] = []
    figures = train(config, rows.append)
    assert "normals" in rows[0]
    assert 0 <= figures["normal_mean_deg"] <= 180
    heads = {g.name: g.rate for g in JointObjective(config, [Samples(config.sources[0], 40)], []).groups}
    assert heads["head_normals"] == 10 * heads["head_depth"]


def test_learned_task_weights_are_learned(folder: Path, tmp_path: Path) -> None:
    config = _config(folder, tmp_path, learned_task_weights=True, loop=Loop(steps=2))
    train(config)
    saved = torch.load(tmp_path / "last.pt", weights_only=True)["learner"]
    assert float(saved["balance.log_variance.depth"]) != 0


def test_settings_that_cannot_work_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sources is empty"):
        _config(folder, tmp_path, sources=())
    with pytest.raises(ValueError, match="stride is 2; expected 4 or 8"):
        _config(folder, tmp_path, stages=(Stage(stride=2),))
    with pytest.raises(ValueError, match="unknown task 'pose'; known are segmentation, depth, normals"):
        Source(str(folder), tasks=("pose",))


CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("file", [p for p in CONFIGS if not p.stem.startswith("pose_")], ids=lambda p: p.stem)
def test_our_configurations_are_understood(file: Path) -> None:
    from semslam.config import load

    if "sources" in file.read_text():
        config = load(file, JointTraining)
        assert config.stages[-1].until == 1.0


def test_the_four_regimes_run_on_two_budgets(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images with labels and four without: of the mixed batches a third of the images is labelled."""
    base = _config(folder, tmp_path, batch=4, stages=(Stage(),), loop=Loop(steps=6))
    trained: dict[str, JointTraining] = {}

    def remembered(config: JointTraining, report: Any) -> dict[str, float]:
        trained[Path(config.out).name] = config
        checkpoints.save(Path(config.out) / "network.safetensors", JointNetwork(40))
        return {"rmse": 1.0}

    monkeypatch.setattr(regimes, "train", remembered)
    results = list(regimes.compare(base, Source(str(folder), "both"), Source(str(folder), "rest"), [1]))
    assert [r.regime for r in results] == 2 * [
        "fine-tuning", "BlitzNet", "UberNet", "teacher's labels, then fine-tuning",
    ]  # fmt: skip
    # the teacher's pre-training is two thirds of the steps, and fine-tuning the rest
    assert [(r.steps, r.labelled_examples) for r in results[:4]] == [(6, 24), (6, 8), (6, 8), (6, 13)]
    assert [(r.steps, r.labelled_examples) for r in results[4:]] == [(6, 24), (18, 24), (18, 24), (11, 24)]
    assert {name: config.loop.steps for name, config in trained.items()} == {
        "fine-tuning-1": 6, "blitznet-1": 6, "ubernet-1": 6, "pre-training-1": 4, "ours-1": 2,
        "blitznet-labelled-1": 18, "ubernet-labelled-1": 18, "pre-training-labelled-1": 7, "ours-labelled-1": 4,
    }  # fmt: skip
    assert trained["ubernet-1"].task_examples == 10 and trained["blitznet-1"].task_examples == 1
    assert trained["ours-1"].weights == str(tmp_path / "pre-training-1" / "network.safetensors")
    assert trained["ours-1"].encoder_rate == base.encoder_rate / 10
    assert {p.stem for p in (tmp_path / "labels-1").iterdir()} == {"002", "003", "004", "005"}


_SHARED_TRAINING = """
import sys, torch
torch.set_num_threads(1)
from networks.training.loop import Loop
from networks.training.joint import JointTraining, Stage, train
from networks.training.data import Source
folder, out = sys.argv[1:]
train(JointTraining(
    out=out,
    sources=(Source(folder, "both"), Source(folder, "rest", tasks=("depth",))),
    validation=Source(folder, "val"),
    stages=(Stage(1.0, (32, 32), (0.8, 1.2), 4),),
    batch=4,
    class_balance=0.3,
    learned_task_weights=True,
    loop=Loop(steps=3, optimiser="sgd", average=0.0, clip=1.0),
))
"""


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_same_batch(folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "shared.py"
    script.write_text(_SHARED_TRAINING)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    for launcher, name in (([sys.executable], "one"), (torchrun, "two")):
        command = [*launcher, str(script), str(folder), str(tmp_path / name)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
    one, two = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("one", "two"))
    for key, value in one["learner"].items():
        torch.testing.assert_close(two["learner"][key], value, rtol=1e-5, atol=1e-5)
    for group, state in one["optimisers"].items():  # what the gradients of all three steps left
        for number, of_parameter in state["state"].items():
            ours = two["optimisers"][group]["state"][number]["momentum_buffer"]
            theirs = of_parameter["momentum_buffer"]
            assert (ours - theirs).norm() <= 1e-2 * theirs.norm() + 1e-9
    logs = [(tmp_path / name / "log.csv").read_text().splitlines() for name in ("one", "two")]
    columns = logs[0][0].split(",")
    for a, b in zip(logs[0][1:], logs[1][1:], strict=True):
        for column in ("segmentation", "depth"):
            place = columns.index(column)
            assert np.isclose(float(a.split(",")[place] or "nan"), float(b.split(",")[place] or "nan"),
                              rtol=1e-3, equal_nan=True)  # fmt: skip
