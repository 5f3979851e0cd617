"""Random views of labelled images made on the device that trains, which a loader on the processor cannot feed.

The images lie there, decoded once, colours as uint8, and the views of a batch are made together. A view is that of
`networks.augmentation.augmented` from the same random numbers: labels, depth and normals are equal, colours to one grey
level, and to three after a change of colours: OpenCV rounds some halves up and others to even.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from networks.augmentation import PADDING, Augmentation, Sample, View, color_matrix, random_view, scaled_window, spans
from networks.losses import IGNORE


@dataclass(frozen=True, eq=False)
class SampleTensors:
    """A `Sample` as tensors of one device, or many of the same shapes, stacked along a first axis."""

    color: Tensor  # (H, W, 3) uint8 RGB
    labels: Tensor | None = None  # (h, w) uint8, 255 = unlabelled
    depth: Tensor | None = None  # (h, w) float32 metres, 0 = none
    normals: Tensor | None = None  # (h, w, 3) float32 unit, camera frame; zero = none
    soft_labels: Tensor | None = None  # (h, w, C) uint8, a teacher's probabilities times 255; all zero = none

    def each(self, change: Callable[[Tensor], Tensor]) -> SampleTensors:
        """What `change` makes of every image that is there."""
        images = (getattr(self, name) for name in _IMAGES)
        color, *others = (None if image is None else change(image) for image in images)
        assert color is not None
        return SampleTensors(color, *others)


_IMAGES = tuple(field.name for field in fields(SampleTensors))


def as_tensors(sample: Sample, device: torch.device) -> SampleTensors:
    """The sample on a device; on the CPU it shares its memory."""
    color, *others = (
        None if image is None else torch.from_numpy(image).to(device)
        for image in (getattr(sample, name) for name in _IMAGES)
    )
    assert color is not None
    return SampleTensors(color, *others)


class Part(NamedTuple):
    """Samples of a batch that have the same images, stacked."""

    positions: list[int]  # of each in the batch
    samples: SampleTensors


def part_of(position: int, sample: Sample) -> Part:
    """One sample, on the CPU."""
    return Part([position], as_tensors(sample, torch.device("cpu")).each(lambda image: image[None]))


class DeviceSamples:
    """Sets of samples that lie on a device: about 1.6 MB there for each image of 640x480, 2.5 with normals.

    Attributes:
        places: of each sample of each set, by which it is found: its stack, and the number there.
    """

    def __init__(self, sets: Sequence[Sequence[Sample]], device: torch.device) -> None:
        alike: dict[tuple[object, ...], list[SampleTensors]] = {}
        self.places: list[list[tuple[int, int]]] = []
        for samples in sets:
            places = []
            for i in range(len(samples)):
                sample = as_tensors(samples[i], torch.device("cpu"))
                images = (getattr(sample, name) for name in _IMAGES)
                shapes = tuple(None if image is None else tuple(image.shape) for image in images)
                stack = alike.setdefault(shapes, [])
                places.append((list(alike).index(shapes), len(stack)))
                stack.append(sample)
            self.places.append(places)
        self._stacks = [_stacked(samples).each(lambda images: images.to(device)) for samples in alike.values()]

    def views(
        self, which: Sequence[tuple[int, int]], rngs: Sequence[np.random.Generator], config: Augmentation
    ) -> list[Part]:
        """One view of each sample: that which `networks.augmentation.augmented` makes from the same generator.

        Args:
            which: the set of each sample, and its number there.
        """
        places = [self.places[number][i] for number, i in which]
        parts = []
        for number, stack in enumerate(self._stacks):
            asked = [i for i, (own, _) in enumerate(places) if own == number]
            if not asked:
                continue
            rows = torch.tensor([places[i][1] for i in asked], device=stack.color.device)
            shape = (stack.color.shape[1], stack.color.shape[2])
            views = [random_view(shape, rngs[i], config) for i in asked]
            chosen = stack.each(lambda images, rows=rows: images[rows])  # type: ignore[misc]
            parts.append(Part(asked, _augmented(chosen, views, config)))
        return parts


def _stacked(samples: Sequence[SampleTensors]) -> SampleTensors:
    images: list[Tensor | None] = []
    for name in _IMAGES:
        own = [image for image in (getattr(sample, name) for sample in samples) if image is not None]
        images.append(torch.stack(own) if own else None)
    color, *others = images
    assert color is not None
    return SampleTensors(color, *others)


def _augmented(samples: SampleTensors, views: Sequence[View], config: Augmentation) -> SampleTensors:
    """A view of each of some stacked samples."""
    crop, device = config.crop, samples.color.device
    shape = (samples.color.shape[1], samples.color.shape[2])

    def nearest(images: Tensor | None, fill: float) -> Tensor | None:
        return None if images is None else _nearest(images, views, crop, shape, fill)

    color = _smooth(samples.color, views, crop)
    if config.color > 0:
        color = _recolored(color, views)
    depth, normals = nearest(samples.depth, 0.0), nearest(samples.normals, 0.0)
    if depth is not None:
        depth = depth / torch.tensor([view.zoom for view in views], dtype=torch.float32, device=device)[:, None, None]
    if normals is not None:
        signs = torch.tensor([[-1.0 if view.mirror else 1.0, 1.0, 1.0] for view in views], device=device)
        normals = normals * signs[:, None, None]
    return SampleTensors(color, nearest(samples.labels, IGNORE), depth, normals, nearest(samples.soft_labels, 0))


def _smooth(images: Tensor, views: Sequence[View], crop: tuple[int, int]) -> Tensor:
    """The windows of colour images at the crop's size, uint8: means where they shrink, else bilinear."""
    rows, columns = [], []
    for view in views:
        top, left, height, width = view.window
        rows.append(spans(top, height, images.shape[1], crop[0]))
        columns.append(spans(left, width, images.shape[2], crop[1]))
    shrinks = [
        all(last - first >= end - begin for (first, last), (begin, end) in both)
        for both in zip(rows, columns, strict=True)
    ]
    down, covered_rows = _weights(rows, images.shape[1], crop[0], shrinks, images.device)
    across, covered_columns = _weights(columns, images.shape[2], crop[1], shrinks, images.device)
    mirrored = torch.tensor([view.mirror for view in views], device=images.device)
    across = torch.where(mirrored[:, None, None], across.flip(2), across)
    seen = torch.einsum("bvy,byxc->bvxc", down, images.float())
    seen = torch.einsum("bux,bvxc->bvuc", across, seen).round().clamp(0, 255).to(torch.uint8)
    inside = covered_rows[:, :, None, None] & covered_columns[:, None, :, None]
    return torch.where(inside, seen, torch.tensor(PADDING, dtype=torch.uint8, device=images.device))


def _weights(
    spanned: Sequence[tuple[tuple[int, int], tuple[int, int]]],
    source: int,
    target: int,
    shrinks: Sequence[bool],
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Weights (B, target, source) of the pixels of lines in those that they are resized to, and where there are any.

    Each row sums to 1, or to 0 beyond the end of a line.

    Args:
        spanned: of each line, which pixels of the source become which of the target (`augmentation.spans`).
        shrinks: whether to take means.
    """
    numbers = torch.tensor([(*whence, *whither) for whence, whither in spanned], device=device)[:, :, None]
    first, last, begin, end = numbers.unbind(1)  # each (B, 1)
    step = (last - first).double() / (end - begin)
    targets = torch.arange(target, device=device)
    cells = ((targets - begin) * step)[:, :, None]  # (B, target, 1)
    places = (torch.arange(source, device=device) - first).float()[:, None, :]  # (B, 1, source)
    length, step = (last - first).float()[:, :, None], step.float()[:, :, None]
    start = cells.float()
    means = (torch.minimum(start + step, places + 1) - torch.maximum(start, places)).clamp(min=0) / step
    middle = (cells + 0.5 * step.double() - 0.5).float().clamp(min=0).minimum(length - 1)
    linear = (1 - (middle - places).abs()).clamp(min=0)
    there = (targets >= begin) & (targets < end)
    weights = torch.where(torch.tensor(shrinks, device=device)[:, None, None], means, linear)
    return weights * ((places >= 0) & (places < length) & there[:, :, None]), there


def _nearest(
    images: Tensor, views: Sequence[View], crop: tuple[int, int], shape: tuple[int, int], fill: float
) -> Tensor:
    """The windows of images, which may be smaller than the colour images of `shape`, by nearest neighbours."""
    height, width = images.shape[1:3]
    rows = np.full((len(views), crop[0]), -1)
    columns = np.full((len(views), crop[1]), -1)
    for i, view in enumerate(views):
        top, left, window_h, window_w = scaled_window(view.window, height / shape[0], width / shape[1])
        (y0, y1), (v0, v1) = spans(top, window_h, height, crop[0])
        (x0, x1), (u0, u1) = spans(left, window_w, width, crop[1])
        read = _places(x0, x1, u1 - u0)
        rows[i, v0:v1] = _places(y0, y1, v1 - v0)
        columns[i, u0:u1] = width - 1 - read if view.mirror else read
    down, across = (torch.from_numpy(places).to(images.device) for places in (rows, columns))
    lines = torch.arange(len(views), device=images.device)[:, None, None]
    seen = images[lines, down.clamp(min=0)[:, :, None], across.clamp(min=0)[:, None, :]]
    inside = (down >= 0)[:, :, None] & (across >= 0)[:, None, :]
    inside = inside.reshape(*inside.shape, *[1] * (seen.dim() - 3))
    return torch.where(inside, seen, torch.tensor(fill, dtype=images.dtype, device=images.device))


def _places(first: int, last: int, count: int) -> np.ndarray:
    """Which of the pixels first .. last - 1 stand for `count` pixels, (count,) int64: the same as OpenCV's."""
    nearest = np.floor(np.arange(count) * (1 / (count / (last - first)))).astype(np.int64)
    return first + np.minimum(nearest, last - first - 1)


def _recolored(images: Tensor, views: Sequence[View]) -> Tensor:
    """`networks.augmentation.recolored` of some images."""
    changes = [color_matrix(view.gains) for view in views]
    matrices = torch.from_numpy(np.stack([matrix for matrix, _ in changes]).astype(np.float32)).to(images.device)
    pulls = torch.tensor([pull for _, pull in changes], dtype=torch.float32, device=images.device)
    colors = images.float()
    colors = colors + pulls[:, None, None, None] * colors.mean((1, 2), keepdim=True)  # M c + f M m
    changed = torch.einsum("bij,bvuj->bvui", matrices, colors)
    return changed.round().clamp(0, 255).to(torch.uint8)
