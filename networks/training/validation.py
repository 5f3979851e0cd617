"""The figures that a joint network's training is steered by; `semslam score` gives many more."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from networks.joint.network import JointNetwork, normalised
from networks.training.augmentation import Sample
from networks.training.losses import IGNORE


@torch.no_grad()
def scored(
    network: JointNetwork,
    samples: Iterable[Sample],
    resolution: float = 1.0,
    stride: int = 4,
    outputs: tuple[int, int] | None = None,
) -> dict[str, float]:
    """mIoU and pixel accuracy, depth RMSE (metres) and its logarithm, mean angle of the normals (degrees).

    One confusion matrix over the set, classes absent from truth and prediction skipped, unlabelled pixels ignored;
    depth over all valid pixels together, whole frame, no cap; normals likewise. Outputs are resized bilinearly to the
    truth's size. A task without truth, or that the network has not, gets no figure.

    Args:
        network: in eval mode.
        resolution: of the stored images, at which the network sees them.
        stride: of the network's outputs.
        outputs: first and last + 1 of the class outputs that compete, in a joint label space; None = all.
    """
    first, last = outputs or (0, network.num_classes)
    count = last - first
    confusion = np.zeros((count, count), np.int64)
    device = next(network.parameters()).device
    squares, log_squares, depths, angles, normals = 0.0, 0.0, 0, 0.0, 0
    for sample in samples:
        height, width = (round(side * resolution) for side in sample.color.shape[:2])
        image = cv2.resize(sample.color, (width, height), interpolation=cv2.INTER_AREA)
        found = [o.cpu() for o in network(normalised(torch.from_numpy(image)[None].to(device)), stride=stride)]
        if sample.labels is not None:
            predicted = _resized(found[0][:, first:last], sample.labels.shape).argmax(0).numpy()
            valid = sample.labels != IGNORE
            pairs = (sample.labels[valid].astype(np.int64) - first) * count + predicted[valid]
            confusion += np.bincount(pairs, minlength=count**2).reshape(count, count)
        if sample.depth is not None:
            valid = sample.depth > 0
            predicted = _resized(found[1], sample.depth.shape)[0].abs().clamp(min=1e-3).numpy()
            p, g = predicted[valid].astype(np.float64), sample.depth[valid].astype(np.float64)
            squares += float(np.square(p - g).sum())
            log_squares += float(np.square(np.log(p / g)).sum())
            depths += len(g)
        if sample.normals is not None and len(found) > 2:
            valid = np.abs(sample.normals).sum(-1) > 0
            unit = F.normalize(_resized(found[2], sample.normals.shape[:2]), dim=0).numpy()
            cosine = (unit.transpose(1, 2, 0) * sample.normals).sum(-1)[valid]
            angles += float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).sum())
            normals += len(cosine)
    figures: dict[str, float] = {}
    if confusion.any():
        hits = np.diag(confusion)
        union = confusion.sum(0) + confusion.sum(1) - hits
        seen = union > 0
        figures |= {"miou": float((hits[seen] / union[seen]).mean()), "pixel_accuracy": hits.sum() / confusion.sum()}
    if depths:
        figures |= {"rmse": float(np.sqrt(squares / depths)), "rmse_log": float(np.sqrt(log_squares / depths))}
    if normals:
        figures |= {"normal_mean_deg": angles / normals}
    return {name: float(value) for name, value in figures.items()}


def _resized(output: Tensor, shape: tuple[int, ...]) -> Tensor:
    return F.interpolate(output, size=shape[:2], mode="bilinear", align_corners=False)[0]
