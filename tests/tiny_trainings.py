"""Eight tiny images, and trainings on them that take a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from networks.augmentation import Sample
from networks.training import device_views
from networks.training.data import Source, collated
from networks.training.joint import JointObjective, JointTraining, Stage
from networks.training.loop import Loop, run


def write_images(root: Path) -> Path:
    """Eight images 64x48 whose left half is a near wall and whose right half is a far floor."""
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


class Killed(Exception):
    pass


def weights_of(network: nn.Module) -> list[Tensor]:
    return [value.clone() for value in network.state_dict().values()]


def batch_of(views: list[Sample]) -> dict[str, Any]:
    return collated([device_views.part_of(number, view) for number, view in enumerate(views)], 4)


def tiny_training(folder: Path, out: Path, **settings: Any) -> JointTraining:
    defaults: dict[str, Any] = {
        "sources": (Source(str(folder)),),
        "validation": Source(str(folder), "val"),
        "stages": (Stage(0.5, (32, 32), (0.8, 1.2), 8), Stage(1.0, (32, 40), (0.8, 1.2), 4)),
        "batch": 2,
        "loop": Loop(steps=3, warmup=1, average=0.5, save_every=2),
    }
    return JointTraining(out=str(out), **(defaults | settings))


def groups_moved(objective: JointObjective, batch: dict[str, Any], out: Path) -> set[str]:
    """The groups whose weights one step with this batch changes."""
    before = {g.name: [p.detach().clone() for p in g.parameters] for g in objective.groups}
    objective.batch = lambda step, progress: batch  # type: ignore[method-assign]
    objective.validate = lambda network: {"score": 0.0}  # type: ignore[method-assign]
    raw: dict[str, list[Tensor]] = {}

    def look(row: dict[str, float]) -> None:
        raw.update({g.name: [p.detach().clone() for p in g.parameters] for g in objective.groups})

    run(objective, Loop(steps=1), out, look)
    return {n for n in raw if any(not torch.equal(a, b) for a, b in zip(raw[n], before[n], strict=True))}
