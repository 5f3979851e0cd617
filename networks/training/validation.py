"""The figures that a joint network's training is steered by; `semslam score` gives many more."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from networks.augmentation import Sample
from networks.joint.network import JointNetwork, normalised
from networks.losses import IGNORE
from semslam.metrics.depth import DepthErrors
from semslam.metrics.normals import NormalErrors
from semslam.metrics.segmentation import ConfusionMatrix


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
    labels, depths, normals = ConfusionMatrix(last - first), DepthErrors(), NormalErrors()
    device = next(network.parameters()).device
    for sample in samples:
        height, width = (round(side * resolution) for side in sample.color.shape[:2])
        image = cv2.resize(sample.color, (width, height), interpolation=cv2.INTER_AREA)
        found = network(normalised(torch.from_numpy(image)[None].to(device)), stride=stride)
        if sample.labels is not None:
            predicted = _resized(found[0][:, first:last], sample.labels.shape).argmax(0).cpu().numpy()
            labels.add(predicted, np.where(sample.labels == IGNORE, IGNORE, sample.labels - np.uint8(first)))
        if sample.depth is not None:
            depths.add(_resized(found[1], sample.depth.shape)[0].abs().clamp(min=1e-3).cpu().numpy(), sample.depth)
        if sample.normals is not None and len(found) > 2:
            seen = _resized(found[2], sample.normals.shape[:2]).permute(1, 2, 0)
            normals.add(seen.cpu().numpy(), sample.normals)
    figures: dict[str, float] = {}
    if labels.counts.any():
        classes = labels.scores()
        figures |= {"miou": classes.miou, "pixel_accuracy": classes.pixel_accuracy}
    if (depth := depths.pooled()).pixels:
        figures |= {"rmse": depth.rmse, "rmse_log": depth.rmse_log}
    if (angles := normals.scores()).pixels:
        figures["normal_mean_deg"] = angles.mean_deg
    return figures


def _resized(output: Tensor, shape: tuple[int, ...]) -> Tensor:
    return F.interpolate(output, size=shape[:2], mode="bilinear", align_corners=False)[0]
