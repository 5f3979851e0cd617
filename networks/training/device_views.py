"""Random views of labelled images made on the device that trains, which a loader on the processor cannot feed.

The images lie there, decoded once, colours as uint8. A view is that of `networks.augmentation.augmented` from the same
random numbers: labels, depth and normals are equal, colours to one grey level, and to three after a change of colours:
OpenCV rounds some halves up and others to even.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from networks.augmentation import PADDING, Augmentation, Sample, View, color_matrix, random_view, scaled_window, spans
from networks.losses import IGNORE


@dataclass(frozen=True, eq=False)
class SampleTensors:
    """A `Sample` as tensors of one device."""

    color: Tensor  # (H, W, 3) uint8 RGB
    labels: Tensor | None = None  # (h, w) uint8, 255 = unlabelled
    depth: Tensor | None = None  # (h, w) float32 metres, 0 = none
    normals: Tensor | None = None  # (h, w, 3) float32 unit, camera frame; zero = none
    soft_labels: Tensor | None = None  # (h, w, C) uint8, a teacher's probabilities times 255; all zero = none


def as_tensors(sample: Sample, device: torch.device) -> SampleTensors:
    """The sample on a device; on the CPU it shares its memory."""
    color, *others = (
        None if image is None else torch.from_numpy(image).to(device)
        for image in (sample.color, sample.labels, sample.depth, sample.normals, sample.soft_labels)
    )
    assert color is not None
    return SampleTensors(color, *others)


class DeviceSamples(Sequence[SampleTensors]):
    """A set of samples that lie on a device: about 1.6 MB there for each image of 640x480."""

    def __init__(self, samples: Sequence[Sample], device: torch.device) -> None:
        self._kept = [as_tensors(samples[i], device) for i in range(len(samples))]

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> SampleTensors:  # type: ignore[override]
        return self._kept[index]


def augmented(sample: SampleTensors, rng: np.random.Generator, config: Augmentation) -> SampleTensors:
    """The view that `networks.augmentation.augmented` makes from the same `rng`, on the sample's device."""
    view = random_view((sample.color.shape[0], sample.color.shape[1]), rng, config)
    color = _smooth(sample.color, view, config.crop)
    if config.color > 0:
        color = _recolored(color, view.gains)
    shape = (sample.color.shape[0], sample.color.shape[1])
    labels = None if sample.labels is None else _nearest(sample.labels, view, config.crop, shape, IGNORE)
    depth = None if sample.depth is None else _nearest(sample.depth, view, config.crop, shape, 0.0)
    if depth is not None:
        depth = depth / torch.tensor(view.zoom, dtype=torch.float32)
    normals = None if sample.normals is None else _nearest(sample.normals, view, config.crop, shape, 0.0)
    if normals is not None and view.mirror:
        normals = normals * torch.tensor([-1.0, 1.0, 1.0], device=normals.device)
    soft = None if sample.soft_labels is None else _nearest(sample.soft_labels, view, config.crop, shape, 0)
    return SampleTensors(color, labels, depth, normals, soft)


def _smooth(image: Tensor, view: View, crop: tuple[int, int]) -> Tensor:
    """The window of a colour image at the crop's size, uint8: means where it shrinks, else bilinear."""
    top, left, height, width = view.window
    rows = spans(top, height, image.shape[0], crop[0])
    columns = spans(left, width, image.shape[1], crop[1])
    shrinks = all(last - first >= end - begin for (first, last), (begin, end) in (rows, columns))
    (y0, y1), (v0, v1) = rows
    (x0, x1), (u0, u1) = columns
    down = _weights(y1 - y0, v1 - v0, shrinks, image.device)
    across = _weights(x1 - x0, u1 - u0, shrinks, image.device)
    seen = torch.einsum("vy,yxc->vxc", down, image[y0:y1, x0:x1].float())
    seen = torch.einsum("ux,vxc->vuc", across, seen).round().clamp(0, 255).to(torch.uint8)
    return _placed(seen, (v0, u0), crop, view.mirror, torch.tensor(PADDING, dtype=torch.uint8))


def _weights(source: int, target: int, shrinks: bool, device: torch.device) -> Tensor:
    """(target, source) weights of the pixels of a line in those that it is resized to, each row summing to 1."""
    places = torch.arange(source, device=device, dtype=torch.float32)
    step = source / target
    cells = torch.arange(target, device=device, dtype=torch.float64) * step
    if shrinks:  # how far each cell reaches over each pixel
        start = cells.float()[:, None]
        covered = torch.minimum(start + step, places + 1) - torch.maximum(start, places)
        return covered.clamp(min=0) / step
    middle = (cells + 0.5 * step - 0.5).clamp(0, source - 1).float()[:, None]
    return (1 - (middle - places).abs()).clamp(min=0)


def _nearest(image: Tensor, view: View, crop: tuple[int, int], shape: tuple[int, int], fill: float) -> Tensor:
    """The window of an image, which may be smaller than the colour image of `shape`, by nearest neighbours."""
    top, left, height, width = scaled_window(view.window, image.shape[0] / shape[0], image.shape[1] / shape[1])
    (y0, y1), (v0, v1) = spans(top, height, image.shape[0], crop[0])
    (x0, x1), (u0, u1) = spans(left, width, image.shape[1], crop[1])
    rows, columns = (torch.from_numpy(i).to(image.device) for i in (_places(y0, y1, v1 - v0), _places(x0, x1, u1 - u0)))
    seen = image[rows][:, columns]
    return _placed(seen, (v0, u0), crop, view.mirror, torch.tensor(fill, dtype=image.dtype))


def _places(first: int, last: int, count: int) -> np.ndarray:
    """Which of the pixels first .. last - 1 stand for `count` pixels, (count,) int64: the same as OpenCV's."""
    nearest = np.floor(np.arange(count) * (1 / (count / (last - first)))).astype(np.int64)
    return first + np.minimum(nearest, last - first - 1)


def _placed(seen: Tensor, corner: tuple[int, int], crop: tuple[int, int], mirror: bool, fill: Tensor) -> Tensor:
    """`seen` in an image of the crop's size, which is `fill` elsewhere; mirrored afterwards."""
    if seen.shape[:2] != crop:
        canvas = fill.to(seen.device).expand(*crop, *seen.shape[2:]).clone()
        canvas[corner[0] : corner[0] + seen.shape[0], corner[1] : corner[1] + seen.shape[1]] = seen
        seen = canvas
    return seen.flip(1) if mirror else seen


def _recolored(image: Tensor, gains: np.ndarray) -> Tensor:
    """`networks.augmentation.recolored` of a tensor."""
    matrix, pull = color_matrix(gains)
    M = torch.from_numpy(matrix.astype(np.float32)).to(image.device)
    colors = image.float()
    changed = (colors + pull * colors.mean((0, 1))) @ M.T  # M c + f M m
    return changed.round().clamp(0, 255).to(torch.uint8)
