"""The losses of the joint network, each the mean over the pixels that have truth.

Predictions are (B, C, h, w) at the network's resolution, truth at the same. A batch without one valid pixel costs 0
and still has a gradient (of zero), so that a training step needs no special case. In a training of several processes
counts and thresholds are those of the whole batch: each process returns its share of the mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.distributed import largest, summed, world

IGNORE = 255  # label of a pixel without a class


def cross_entropy(
    scores: Tensor, labels: Tensor, class_weights: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy of scores (B, C, h, w) and class ids (B, h, w) int64, mean over the pixels that are not 255.

    With `class_weights` (C,) the mean is weighted. `smoothing` of the truth is shared out over all classes, which
    keeps a network that has learned its images by heart from being too sure (Szegedy et al., CVPR 2016, section 7).
    """
    loss = F.cross_entropy(
        scores, labels, weight=class_weights, ignore_index=IGNORE, reduction="sum", label_smoothing=smoothing
    )
    valid = labels != IGNORE
    # no pixels are picked out: how many there are would have to be known here, for which a GPU would be waited for
    count = valid.sum() if class_weights is None else (class_weights[torch.where(valid, labels, 0)] * valid).sum()
    return loss / summed(count).clamp(min=1e-6)


def soft_cross_entropy(scores: Tensor, probabilities: Tensor) -> Tensor:
    """Cross-entropy of scores (B, C, h, w) and a teacher's probabilities of the same shape, mean over taught pixels.

    Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, at temperature 1. A pixel whose
    probabilities are all zero is not taught; others are brought to a sum of 1, which 8 bits have lost.
    """
    total = probabilities.sum(1)
    loss = -(probabilities * scores.log_softmax(1)).sum(1) / total.clamp(min=1e-6)
    return _mean_where(total > 0, loss)


def lovasz_softmax(scores: Tensor, labels: Tensor) -> Tensor:
    """A convex surrogate of 1 - mIoU over the classes that the batch holds; scores and labels as in `cross_entropy`.

    Berman, Triki and Blaschko, "The Lovasz-Softmax loss", CVPR 2018, equations 8 and 9: a class's errors of
    probability, sorted downwards, times the gradient of the Jaccard index's Lovasz extension. Cross-entropy counts
    pixels, and so large classes; this counts classes alike, as mIoU does. A process of several returns its share.
    """
    probabilities = scores.softmax(1).movedim(1, 0).flatten(1)  # (classes, pixels)
    classes = torch.arange(len(probabilities), device=labels.device)
    truth = labels.flatten() == classes[:, None]
    # unlabelled pixels have no error, and come last
    errors = (truth.to(scores.dtype) - probabilities).abs() * (labels.flatten() != IGNORE)
    errors, order = errors.sort(dim=1, descending=True, stable=True)
    present = truth.any(1)
    truth = truth.gather(1, order).to(scores.dtype)
    total = truth.sum(1, keepdim=True)
    jaccard = 1 - (total - truth.cumsum(1)) / (total + (1 - truth).cumsum(1))
    gradient = torch.cat([jaccard[:, :1], jaccard[:, 1:] - jaccard[:, :-1]], 1)
    losses = torch.where(present, (errors * gradient.detach()).sum(1), 0.0)
    return losses.sum() / present.sum().clamp(min=1) / world()


def inverse_huber(predicted: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Inverse Huber of depths (B, h, w) in metres: |e| up to c, (e^2 + c^2) / (2 c) beyond, c = 0.2 max |e|.

    Laina et al., "Deeper Depth Prediction with Fully Convolutional Residual Networks", 2016. The threshold c is the
    batch's, over valid pixels, and carries no gradient; the mean is over valid pixels, so that the loss does not
    depend on how many are missing; nothing clips the prediction, so that a negative one is pulled up.
    """
    error = torch.where(valid, predicted - truth, torch.zeros_like(predicted)).abs()
    c = (0.2 * largest(error.max())).clamp(min=1e-6)  # a perfect batch must not divide by zero
    loss = torch.where(error <= c, error, (error.square() + c * c) / (2 * c))
    return _mean_where(valid, loss)


def negative_dot(predicted: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Minus the cosine between predicted (B, 3, h, w; any length) and true unit normals, mean over valid (B, h, w)."""
    return -_mean_where(valid, (F.normalize(predicted, dim=1, eps=1e-6) * truth).sum(1))


def _mean_where(valid: Tensor, value: Tensor) -> Tensor:
    return torch.where(valid, value, torch.zeros_like(value)).sum() / summed(valid.sum()).clamp(min=1)


class FixedWeights(nn.Module):
    """The sum of the tasks' losses with given weights."""

    def __init__(self, weights: dict[str, float]) -> None:
        super().__init__()
        self.weights = dict(weights)

    def forward(self, losses: dict[str, Tensor]) -> Tensor:
        return torch.stack([self.weights[task] * loss for task, loss in losses.items()]).sum()


class UncertaintyWeights(nn.Module):
    """The sum of the tasks' losses with learned weights: exp(-s) L + s / 2, for regression exp(-s) L / 2 + s / 2.

    Kendall, Gal and Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses", CVPR 2018, equations 7 and 10
    with s = log sigma^2: a task whose loss stays high counts less, and s keeps all from counting nothing.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.log_variance = nn.ParameterDict({task: nn.Parameter(torch.zeros(())) for task in tasks})

    def forward(self, losses: dict[str, Tensor]) -> Tensor:
        terms = []
        for task, loss in losses.items():
            s = self.log_variance[task]
            factor = 1.0 if task == "segmentation" else 0.5
            terms.append(factor * torch.exp(-s) * loss + 0.5 * s / world())  # losses are shares, too
        return torch.stack(terms).sum()
