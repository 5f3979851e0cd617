"""Where a network looks: Grad-CAM++ heat maps of its encoder's layers, for a class, a pixel's depth or a pose.

Chattopadhyay et al., "Grad-CAM++: Improved Visual Explanations for Deep Convolutional Networks", WACV 2018. Of a score
S, with the features A of a layer (channels k, pixels ij) and g = dS/dA, for Y = exp(S):

    alpha_ij^k = g^2 / (2 g^2 + g^3 sum_ab A_ab^k)      (equation 19; 0 where g = 0)
    w_k = sum_ij alpha_ij^k ReLU(g_ij^k)
    map_ij = ReLU(sum_k w_k A_ij^k)

The factor exp(S) that the paper has in w_k is the same for all channels, and a map is shown from its least to its
largest value: it is left out, because it overflows for a score above 88.

The paper's features have been through a ReLU. MobileNet-v2's bottlenecks are linear, so that the sum of A may be
negative there; the formula is taken as it is all the same. (Taking positive and negative parts for channels of their
own, with the gradients g and -g, would restore its premise; with the bundled network it found classes worse.)

A channel is weighed as a whole, so a map shows all places that look like what drives the score, not only those that
do drive it: the maps of one pixel's depth are not confined to what is around it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.joint.encoders import MobileNetV2
from networks.joint.resnet import ResNet
from semslam.images.resizing import resized_ids

ChannelWeights = Callable[[Tensor, Tensor], Tensor]  # features and gradient (B, C, h, w) -> weights (B, C)
Score = Callable[[dict[str, Tensor]], Tensor]  # the network's outputs -> the number whose cause is looked for
LAYERS = (1, 2, 3, 4)  # at 1/4, 1/8, 1/16 and 1/32 of the image
ROTATION_WEIGHT = float(np.exp(3.0))  # of a rotation in the error of a pose, as it is trained
MOBILENET_LAYERS = {1: "layer3", 2: "layer4", 3: "layer6", 4: "layer8"}  # the last of each size


def paper(features: Tensor, gradient: Tensor) -> Tensor:
    """The weights of the channels by the paper's formula."""
    return _channel_weights(gradient, features.sum((2, 3), keepdim=True) * gradient**3)


def cubed_inside(features: Tensor, gradient: Tensor) -> Tensor:
    """The formula of a widespread implementation, with g^3 inside the sum: g^2 / (2 g^2 + sum_ab A_ab g_ab^3)."""
    return _channel_weights(gradient, (features * gradient**3).sum((2, 3), keepdim=True))


def grad_cam(features: Tensor, gradient: Tensor) -> Tensor:
    """The formula of Grad-CAM (Selvaraju et al., ICCV 2017), without the ++: the gradient's sum.

    Where a score is of many pixels, gradients of both signs cancel in it, as they do not in the others.
    """
    return gradient.sum((2, 3))


def _channel_weights(gradient: Tensor, third: Tensor) -> Tensor:
    below = 2 * gradient.square() + third
    alphas = gradient.square() / torch.where(below == 0, torch.ones_like(below), below)
    return (alphas * F.relu(gradient)).sum((2, 3))


VARIANTS: dict[str, ChannelWeights] = {"paper": paper, "inside": cubed_inside, "grad-cam": grad_cam}


def heat(features: Tensor, gradient: Tensor, weighting: ChannelWeights = paper) -> Tensor:
    """The map (B, h, w), not negative, of features (B, C, h, w) and the score's gradient by them."""
    features, gradient = features.double(), gradient.double()  # cubes of gradients leave the range of float32
    return F.relu((weighting(features, gradient)[:, :, None, None] * features).sum(1))


def encoder_layers(network: nn.Module) -> dict[int, nn.Module]:
    """The layers 1 to 4 of a network's (first) encoder."""
    for part in network.modules():
        if isinstance(part, ResNet):
            return {number: getattr(part, f"layer{number}") for number in LAYERS}
        if isinstance(part, MobileNetV2):
            return {number: getattr(part, name) for number, name in MOBILENET_LAYERS.items()}
    raise ValueError(f"a {type(network).__name__} has neither a ResNet nor a MobileNet-v2 encoder to look into")


def heat_maps(
    layers: dict[int, nn.Module],
    run: Callable[[], dict[str, Tensor]],
    scores: Sequence[Score],
    weighting: ChannelWeights = paper,
) -> dict[int, Tensor]:
    """The map (h, w) of each layer: of several scores the sum of their maps.

    Args:
        layers: modules that return features (B, C, h, w); of a batch the first image counts.
        run: a forward pass through them, with gradients.
    """
    features: dict[int, Tensor] = {}

    def keep(number: int) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda module, inputs, output: features.__setitem__(number, output)

    hooks = [layer.register_forward_hook(keep(number)) for number, layer in layers.items()]
    try:
        with torch.enable_grad():
            outputs = run()
    finally:
        for hook in hooks:
            hook.remove()
    maps = {number: torch.zeros(f.shape[-2:], dtype=torch.float64) for number, f in features.items()}
    for i, score in enumerate(scores):
        gradients = torch.autograd.grad(
            score(outputs), list(features.values()), retain_graph=i + 1 < len(scores), allow_unused=True
        )
        for (number, f), gradient in zip(features.items(), gradients):
            if gradient is not None:  # a layer that the score does not depend on
                maps[number] += heat(f.detach(), gradient, weighting)[0].cpu()
    return maps


def stretched(heat_map: Tensor, size: tuple[int, int]) -> np.ndarray:
    """A map (h, w) as (H, W) float32 from 0 to 1, bilinearly; all 0 where it is the same everywhere."""
    large = F.interpolate(heat_map[None, None].float(), size=size, mode="bilinear", align_corners=False)[0, 0]
    low, high = float(large.min()), float(large.max())
    return ((large - low) / (high - low) if high > low else torch.zeros_like(large)).numpy()


# ------------------------------------------------------------------------------------------------------- scores


def class_score(class_id: int) -> Score:
    """The mean score, before soft-max, of a class over the pixels that the network gives to it; over all if none."""

    def score(outputs: dict[str, Tensor]) -> Tensor:
        scores = outputs["segmentation"][0]
        own = scores.argmax(0) == class_id
        return scores[class_id][own].mean() if own.any() else scores[class_id].mean()

    return score


def depth_score(u: float, v: float) -> Score:
    """The depth at a place of the image, (u, v) from 0 to 1: columns and rows as shares of its width and height."""

    def score(outputs: dict[str, Tensor]) -> Tensor:
        place = torch.tensor([[[[2 * u - 1, 2 * v - 1]]]], dtype=outputs["depth"].dtype)
        return F.grid_sample(
            outputs["depth"][:1], place.to(outputs["depth"].device), padding_mode="border", align_corners=False
        ).sum()

    return score


def pose_scores() -> list[Score]:
    """Each of the six numbers of a pose, upwards and downwards: what moves the pose, whichever way."""

    def number(k: int, sign: int) -> Score:
        return lambda outputs: sign * outputs["pose"][0, k]

    return [number(k, sign) for k in range(6) for sign in (1, -1)]


def pose_error(truth: Sequence[float]) -> Score:
    """The error of a pose, as it is trained: mean absolute differences of translation and, weighted, log-quaternion.

    Args:
        truth: 6 numbers as the network gives them, see `networks.pose.encoding`; or the 3 of the translation alone.
    """

    def score(outputs: dict[str, Tensor]) -> Tensor:
        difference = (outputs["pose"][0, : len(truth)] - outputs["pose"].new_tensor(truth)).abs()
        rotation = difference[3:]
        return difference[:3].mean() + (ROTATION_WEIGHT * rotation.mean() if len(rotation) else 0)

    return score


# ---------------------------------------------------------------------------------------------- trained networks


class Attention:
    """A trained network that can be asked where it looks.

    Attributes:
        network: the module, in eval mode.
        tasks: what it predicts: some of "pose", "segmentation", "depth".
        label_set: name of its classes, if it has any.
        needs_labels: whether an image must come with labels.
    """

    def __init__(
        self,
        network: nn.Module,
        outputs: Callable[[np.ndarray, np.ndarray | None], dict[str, Tensor]],
        tasks: Sequence[str],
        label_set: str | None = None,
        needs_labels: bool = False,
        statistics: Any = None,
    ) -> None:
        """
        Args:
            outputs: image (H, W, 3) uint8 RGB, labels (H, W) or None -> the outputs of the network, by name.
            statistics: `PoseStatistics` that normalise the network's positions.
        """
        self.network, self.tasks, self.label_set = network.eval(), tuple(tasks), label_set
        self.needs_labels = needs_labels
        self._outputs, self._statistics = outputs, statistics

    @classmethod
    def load(cls, weights: str | Path | None = None, classes: str | None = None) -> Attention:
        """The network of a weights file, joint or pose; the bundled joint network by default.

        Args:
            classes: of a joint network of several label sets, which one to use; the first by default.
        """
        from networks.pose.predictor import holds_pose_network

        if weights is not None and holds_pose_network(weights):
            return cls.of_pose_weights(weights)
        return cls.of_joint_weights(weights, classes)

    @classmethod
    def of_joint_weights(cls, weights: str | Path | None = None, classes: str | None = None) -> Attention:
        """Of a joint network; see `load`."""
        from networks.inference.predictor import check_image, input_shape
        from networks.joint import checkpoints
        from networks.joint.network import normalised
        from networks.pose.predictor import shrunk

        network, metadata = checkpoints.load(weights)
        path = weights or checkpoints.bundled()
        name, (first, last) = checkpoints.label_outputs(network.num_classes, metadata, classes, path)

        def outputs(image: np.ndarray, labels: np.ndarray | None) -> dict[str, Tensor]:
            check_image(image)
            seen = shrunk(image, input_shape(metadata.get("input_size"), *image.shape[:2]))
            found = dict(zip(network.tasks, network(normalised(torch.from_numpy(seen)[None]))))
            return found | {"segmentation": found["segmentation"][:, first:last], "depth": found["depth"].abs()}

        return cls(network, outputs, ("segmentation", "depth"), name)

    @classmethod
    def of_pose_weights(cls, weights: str | Path) -> Attention:
        """Of a pose network."""
        from networks.inference.predictor import check_image
        from networks.pose.predictor import PosePredictor

        predictor = PosePredictor.load(weights)
        network, (height, width) = predictor.network, predictor.input_size

        def outputs(image: np.ndarray, labels: np.ndarray | None) -> dict[str, Tensor]:
            check_image(image)
            named = None
            if labels is not None and predictor.needs_labels:
                named = torch.from_numpy(resized_ids(labels, (width, height)))[None]
            return network.outputs(predictor.input(image), named)

        metadata = predictor.metadata
        return cls(
            network, outputs, network.tasks, metadata.get("class_set"), predictor.needs_labels, predictor.statistics
        )

    def labels(self, image: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        """(h, w) class ids at the network's own resolution."""
        with torch.no_grad():
            return self._outputs(image, labels)["segmentation"][0].argmax(0).numpy()

    def __call__(
        self,
        image: np.ndarray,
        scores: Sequence[Score],
        layers: Sequence[int] = LAYERS,
        labels: np.ndarray | None = None,
        weighting: ChannelWeights = paper,
    ) -> dict[int, np.ndarray]:
        """The map (H, W) float32, 0 to 1, of each layer: where what is seen drives the scores.

        Args:
            image: (H, W, 3) uint8 RGB.
            scores: whose causes are shown, see `class_score`, `depth_score`, `pose_scores` and `pose_error`.
            labels: (H, W) uint8, for the networks that read them beside the image.
        """
        known = encoder_layers(self.network)
        if unknown := [number for number in layers if number not in known]:
            raise ValueError(f"there is no layer {unknown[0]}; there are {', '.join(map(str, known))}")
        maps = heat_maps({n: known[n] for n in layers}, lambda: self._outputs(image, labels), scores, weighting)
        return {number: stretched(heat_map, (image.shape[0], image.shape[1])) for number, heat_map in maps.items()}

    def pose_scores(self, position: Sequence[float] | None = None) -> list[Score]:
        """What moves the predicted pose; with the true `position` (metres, world), what makes its position wrong."""
        if position is None:
            return pose_scores()
        mean, std = self._statistics.mean, self._statistics.std
        return [pose_error([(x - m) / s for x, m, s in zip(position, mean, std, strict=True)])]

    def class_scores(self, class_id: int) -> list[Score]:
        """What speaks for a class, where the network sees it."""
        return [class_score(class_id)]

    def depth_scores(self, u: float, v: float) -> list[Score]:
        """What makes a place far, (u, v) from 0 to 1."""
        return [depth_score(u, v)]
