"""What a pose network is taught by: distances of poses and of motions, and how the terms are weighed.

A batch is of tuples: poses are (B, T, 6), a translation (normalised by the statistics) and a log-quaternion. T is 1 for
PoseNet. Each term is the mean over its numbers, of the whole batch in a training of several processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from networks.distributed import summed, world
from networks.losses import UncertaintyWeights
from networks.pose.encoding import PoseStatistics, relative_motion

# The starts of a in exp(-a) L + a, from MapNet: rotations, whose numbers are smaller, weigh exp(3) = 20 times as much.
INITIAL = {"translation": 0.0, "rotation": -3.0, "relative_translation": 0.0, "relative_rotation": -3.0}


def plain_differences(pose: Tensor, statistics: PoseStatistics) -> Tensor:
    """Each pose's six numbers minus those before, (B, T - 1, 6): what MapNet's reference code takes for motion.

    It is one only approximately: the difference of logarithms is not the logarithm of the motion, and the translation
    stays in the world's axes.
    """
    return pose[:, 1:] - pose[:, :-1]


def true_motions(pose: Tensor, statistics: PoseStatistics) -> Tensor:
    """Each camera in the frame of the one before, (B, T - 1, 6), in metres: it does not depend on the world's axes."""
    # the mean would cancel, and in float32 coordinates of a country (RobotCar: 5,736 km) have steps of half a metre
    metres = torch.cat([pose[..., :3] * pose.new_tensor(statistics.std), pose[..., 3:]], -1)
    return relative_motion(metres[:, :-1], metres[:, 1:])


RELATIVES: dict[str, Callable[[Tensor, PoseStatistics], Tensor]] = {
    "difference": plain_differences,
    "motion": true_motions,
}


def pose_terms(
    predicted: Tensor,
    truth: Tensor,
    statistics: PoseStatistics,
    relative: str | None = None,
    placed: Tensor | None = None,
) -> dict[str, Tensor]:
    """L1 distances of predicted and true poses (B, T, 6): `translation`, `rotation`, and the same of motions.

    Args:
        relative: a key of RELATIVES; None leaves motions out.
        placed: (B,) bool, the tuples whose poses are in the world of the map. Of the others (MapNet++: poses by
            odometry, in a world of their own) only true motions count.
    """
    everywhere = torch.ones(len(predicted), dtype=torch.bool, device=predicted.device) if placed is None else placed
    errors = (predicted - truth).abs()
    terms = _means("", errors, everywhere)
    if relative is not None and predicted.shape[1] > 1:
        motion = RELATIVES[relative]
        errors = (motion(predicted, statistics) - motion(truth, statistics)).abs()
        terms |= _means("relative_", errors, everywhere)
    if placed is not None and predicted.shape[1] > 1:
        errors = (true_motions(predicted, statistics) - true_motions(truth, statistics)).abs()
        terms |= _means("odometry_", errors, ~everywhere)
    return terms


def _means(prefix: str, errors: Tensor, which: Tensor) -> dict[str, Tensor]:
    count = summed(which.sum())
    if count == 0:
        return {}
    errors = torch.where(which[:, None, None], errors, torch.zeros_like(errors))
    sums = errors.sum((0, 1)) / (count * errors.shape[1] * 3)
    return {f"{prefix}translation": sums[:3].sum(), f"{prefix}rotation": sums[3:].sum()}


class GeometricWeights(nn.Module):
    """The sum of exp(-a) L + a over the terms, with a learned or kept.

    Kendall and Cipolla, "Geometric Loss Functions for Camera Pose Regression with Deep Learning", CVPR 2017, and
    MapNet. Give its parameters no weight decay: that pulls the weights towards 1.
    """

    def __init__(self, initial: Mapping[str, float], learned: bool = True) -> None:
        super().__init__()
        self.a = nn.ParameterDict({name: nn.Parameter(torch.tensor(float(v))) for name, v in initial.items()})
        self.requires_grad_(learned)

    def forward(self, losses: dict[str, Tensor]) -> Tensor:
        # a loss is this process's share, and so must the rest be
        return torch.stack([torch.exp(-self.a[k]) * loss + self.a[k] / world() for k, loss in losses.items()]).sum()


def geometric_weights(terms: Iterable[str], learned: bool = True) -> nn.Module:
    """Weights that start as MapNet's; of a term that it has not, at 0."""
    initial = {name: INITIAL.get(name.replace("odometry_", "relative_"), 0.0) for name in terms}
    return GeometricWeights(initial, learned)


def uncertainty_weights(terms: Iterable[str], learned: bool = True) -> nn.Module:
    """Learned uncertainties, see `losses.UncertaintyWeights`: segmentation is weighed as a classification."""
    return UncertaintyWeights(list(terms)).requires_grad_(learned)


WEIGHTINGS: dict[str, Callable[[Iterable[str], bool], nn.Module]] = {
    "geometric": geometric_weights,
    "uncertainty": uncertainty_weights,
}
