"""The joint network's training: labelled images in, cross-entropy and inverse Huber against them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks import checkpoints
from networks.augmentation import Augmentation, Sample, augmented
from networks.encoders import imagenet_from_folded, imagenet_from_torchvision, load_encoder
from networks.joint import JointNetwork, normalised
from networks.losses import IGNORE, cross_entropy, inverse_huber, negative_dot
from networks.optimisation import Group
from networks.training import Loop, run

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Stage:
    """A part of a training, up to a share of its length."""

    until: float = 1.0  # share of the training at which the next stage begins
    crop: tuple[int, int] = (350, 350)  # height, width in pixels
    scale: tuple[float, float] = (0.5, 2.0)  # range of the random zoom
    stride: int = 4  # 8: outputs at 1/8, without the decoder's finest level: about 1.7 times cheaper


@dataclass(frozen=True)
class JointTraining:
    """Everything that decides a training of the joint network."""

    data: str  # a folder of labelled images
    out: str  # folder of the checkpoints and the log
    split: str = "train"
    validation: str = "val"
    num_classes: int = 40
    tasks: tuple[str, ...] = ("segmentation", "depth")
    encoder: str | None = None  # ImageNet weights: folded .npz, or torchvision's state dict
    weights: str | None = None  # a checkpoint of the whole network to start from
    resolution: float = 0.5  # of the stored images at which the network works
    stages: tuple[Stage, ...] = (Stage(),)
    batch: int = 8
    color: float = 0.2  # strength of the random recolouring
    encoder_rate: float = 1e-4
    decoder_rate: float = 5e-4
    weight_decay: float = 1e-2
    frozen_layers: int = 0  # encoder layers, from the image, that keep their weights
    class_balance: float = 0.0  # power p of a class's weight (its share of the pixels)^-p; 0 = all alike
    task_weights: dict[str, float] = field(default_factory=lambda: {"segmentation": 0.5, "depth": 0.5, "normals": 0.5})
    loop: Loop = field(default_factory=Loop)


class JointObjective:
    """Labelled images for a joint network."""

    measure = "score"

    def __init__(self, config: JointTraining, train: Sequence[Sample], validation: Sequence[Sample]) -> None:
        self.config = config
        self.train, self.validation = train, validation
        torch.manual_seed(config.loop.seed)
        self.model = _network(config)
        self.groups = _groups(self.model, config)
        self.stride = 4  # of the stage that was learned from last
        self.class_weights = None
        if config.class_balance > 0:
            self.class_weights = class_weights(train, config.num_classes, config.class_balance)

    def batch(self, step: int, progress: float) -> dict[str, Any]:
        stage = next((s for s in self.config.stages if progress < s.until), self.config.stages[-1])
        augmentation = Augmentation(stage.crop, stage.scale, self.config.resolution, color=self.config.color)
        seed, size = self.config.loop.seed, self.config.batch
        views = []
        for position in range(step * size, (step + 1) * size):
            epoch, place = divmod(position, len(self.train))
            order = np.random.default_rng([seed, 1, epoch]).permutation(len(self.train))
            views.append(augmented(self.train[order[place]], np.random.default_rng([seed, 2, position]), augmentation))
        return collated(views, stage.stride, self.config.num_classes)

    def loss(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float], dict[str, int]]:
        self.stride = batch["stride"]
        outputs = dict(zip(self.model.tasks, self.model(batch["image"], stride=self.stride), strict=True))
        losses = {}
        if batch["labels"] is not None:
            losses["segmentation"] = cross_entropy(outputs["segmentation"], batch["labels"], self.class_weights)
        if batch["depth"] is not None:
            losses["depth"] = inverse_huber(outputs["depth"][:, 0], batch["depth"], batch["depth"] > 0)
        if "normals" in outputs and batch["normals"] is not None:
            valid = batch["normals"].abs().sum(1) > 0
            losses["normals"] = negative_dot(outputs["normals"], batch["normals"], valid)
        total = torch.stack([self.config.task_weights[task] * loss for task, loss in losses.items()]).sum()
        count = len(batch["image"])
        return (
            total,
            {task: float(loss.detach()) for task, loss in losses.items()},
            {g.name: count for g in self.groups},
        )

    def validate(self, model: nn.Module) -> dict[str, float]:
        figures = scored(model, self.validation, self.config.num_classes, self.config.resolution, self.stride)
        # one point of mIoU counts as much as one centimetre: about how the paper's rows differ
        figures["score"] = figures["miou"] - figures["rmse"]
        return figures


def collated(views: Sequence[Sample], stride: int, num_classes: int) -> dict[str, Any]:
    """Tensors of a batch: image (B, 3, H, W); labels, depth (B, h, w) and normals (B, 3, h, w) at 1 / stride."""
    start = stride // 2  # the middle of each cell

    def stacked(images: list[np.ndarray | None]) -> Tensor | None:
        if any(image is None for image in images):
            return None
        return torch.from_numpy(np.stack([image[start::stride, start::stride] for image in images]))  # type: ignore[index]

    labels = stacked([view.labels for view in views])
    normals = stacked([view.normals for view in views])
    return {
        "image": normalised(torch.from_numpy(np.stack([view.color for view in views]))),
        "labels": None if labels is None else labels.long(),
        "depth": stacked([view.depth for view in views]),
        "normals": None if normals is None else normals.permute(0, 3, 1, 2),
        "stride": stride,
    }


def class_weights(samples: Sequence[Sample], num_classes: int, power: float) -> Tensor:
    """Weights (C,) of the classes, share^-power, with a mean of 1 over the pixels; 0 for a class that never occurs."""
    counts = np.zeros(256, np.int64)
    for sample in samples:
        if sample.labels is not None:
            counts += np.bincount(sample.labels.ravel(), minlength=256)
    share = counts[:num_classes] / max(1, counts[:num_classes].sum())
    weights = np.where(share > 0, np.maximum(share, 1e-6) ** -power, 0)
    return torch.from_numpy((weights / (weights * share).sum()).astype(np.float32))


def scored(
    model: nn.Module, samples: Sequence[Sample], num_classes: int, resolution: float, stride: int = 4
) -> dict[str, float]:
    """mIoU and pixel accuracy at the labels' size, pooled RMSE (metres) at the depth's size.

    One confusion matrix over the set, classes absent from truth and prediction skipped; depth over all valid pixels,
    whole frame, no cap. Outputs are resized bilinearly.
    """
    confusion = np.zeros((num_classes, num_classes), np.int64)
    squares, log_squares, pixels = 0.0, 0.0, 0
    for sample in samples:
        height, width = (round(side * resolution) for side in sample.color.shape[:2])
        image = cv2.resize(sample.color, (width, height), interpolation=cv2.INTER_AREA)
        scores, depth = model(normalised(torch.from_numpy(image)[None]), stride=stride)[:2]
        if sample.labels is not None:
            up = F.interpolate(scores, size=sample.labels.shape, mode="bilinear", align_corners=False)
            predicted = up[0].argmax(0).numpy()
            valid = sample.labels != IGNORE
            pair = sample.labels[valid].astype(np.int64) * num_classes + predicted[valid]
            confusion += np.bincount(pair, minlength=num_classes**2).reshape(num_classes, num_classes)
        if sample.depth is not None:
            up = F.interpolate(depth, size=sample.depth.shape, mode="bilinear", align_corners=False)[0, 0].abs()
            predicted, valid = up.clamp(min=1e-3).numpy(), sample.depth > 0
            p, g = predicted[valid].astype(np.float64), sample.depth[valid].astype(np.float64)
            squares += float(np.square(p - g).sum())
            log_squares += float(np.square(np.log(p / g)).sum())
            pixels += len(g)
    hits, union = np.diag(confusion), confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    seen = union > 0
    return {
        "miou": float((hits[seen] / union[seen]).mean()) if seen.any() else float("nan"),
        "pixel_accuracy": float(hits.sum() / max(1, confusion.sum())),
        "rmse": float(np.sqrt(squares / max(1, pixels))),
        "rmse_log": float(np.sqrt(log_squares / max(1, pixels))),
    }


def _network(config: JointTraining) -> JointNetwork:
    network = JointNetwork(config.num_classes, config.tasks)
    if config.weights is not None:
        checkpoints.fill(network, checkpoints.read_tensors(config.weights), config.weights)
    elif config.encoder is not None:
        read = imagenet_from_folded if config.encoder.endswith(".npz") else imagenet_from_torchvision
        load_encoder(network, read(config.encoder))
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _groups(network: JointNetwork, config: JointTraining) -> list[Group]:
    frozen = {f"layer{number}" for number in range(1, config.frozen_layers + 1)}
    encoder, decoder = [], []
    for name, parameter in network.named_parameters():
        layer = name.split(".")[0]
        if layer in frozen:
            parameter.requires_grad_(False)
        elif layer.startswith("layer"):
            encoder.append(parameter)
        else:
            decoder.append(parameter)
    return [
        Group("encoder", encoder, config.encoder_rate, weight_decay=config.weight_decay),
        Group("decoder", decoder, config.decoder_rate, weight_decay=config.weight_decay),
    ]


def read_samples(folder: str | Path, split: str, num_classes: int) -> list[Sample]:
    """Every image of a split, decoded and in memory (about 1.6 MB each at 640x480)."""
    from sequences.labelled_images import LabelledFolder

    images = LabelledFolder(folder, split, num_classes)
    with ThreadPoolExecutor(2) as pool:
        return [Sample(i.color, i.labels, i.depth, i.normals) for i in pool.map(images.__getitem__, range(len(images)))]


def train(config: JointTraining, report: Callable[[dict[str, float]], None] | None = None) -> dict[str, float]:
    """Train as `config` says, or go on where a killed training stopped; returns the last validation's figures."""
    objective = JointObjective(
        config,
        read_samples(config.data, config.split, config.num_classes),
        read_samples(config.data, config.validation, config.num_classes),
    )
    return run(objective, config.loop, config.out, report)
