"""`postprocessing` of tensors on an accelerator: the same images, and only what was asked for is copied back.

Copied to ordinary memory, the probabilities of 40 classes at 640x480 (49 MB) would cost more than the network.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from networks.inference.postprocessing import BORDER_CELLS, SLANT, Recycled
from semslam.camera import KINECT_FOCAL


def class_probabilities(
    scores: Tensor, size: tuple[int, int], merge: np.ndarray | None = None, temperature: float = 1.0
) -> np.ndarray:
    """`postprocessing.class_probabilities` of scores (h, w, C) on a device."""
    probabilities = torch.softmax(scores.float() / temperature, dim=-1)
    if merge is not None:
        probabilities = probabilities @ torch.from_numpy(merge).to(scores.device)
    return _copied(_resized(probabilities, size))


def depth(output: Tensor, size: tuple[int, int]) -> np.ndarray:
    """`postprocessing.depth` of (h, w, 1) on a device."""
    return _copied(_resized(output.float().abs(), size)[..., 0])


def normals(output: Tensor, size: tuple[int, int]) -> np.ndarray:
    """`postprocessing.normals` of (h, w, 3) on a device."""
    return _copied(F.normalize(_resized(output.float(), size), dim=-1, eps=1e-6))


def depth_confidence(output: Tensor, size: tuple[int, int], focal: float = KINECT_FOCAL) -> np.ndarray:
    """`postprocessing.depth_confidence` of (h, w, 1) on a device."""
    height, width = output.shape[:2]
    logarithm = output[..., 0].float().abs().clamp(min=1e-2).log()
    padded = F.pad(logarithm[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    across, down = padded[1:-1, 2:] - padded[1:-1, :-2], padded[2:, 1:-1] - padded[:-2, 1:-1]
    tangent = (across.square() + down.square()).sqrt() * (0.5 * focal * width)
    tangent = F.max_pool2d(tangent[None, None], 3, stride=1, padding=1)[0, 0]
    confidence = 1 / (1 + (tangent / SLANT).square())
    rows, columns = (_from_border(count, output.device) for count in (height, width))
    return _copied(_resized((confidence * torch.minimum(rows[:, None], columns))[..., None], size)[..., 0])


def _from_border(count: int, device: torch.device) -> Tensor:
    """(count,) factors: a half at both ends, 1 from `BORDER_CELLS` on."""
    places = torch.arange(count, device=device)
    return (0.5 + 0.5 * torch.minimum(places, count - 1 - places) / BORDER_CELLS).clamp(max=1)


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(h, w, C) at `size` (W, H), bilinearly, pixel centres on pixel centres."""
    large = F.interpolate(image.permute(2, 0, 1)[None], (size[1], size[0]), mode="bilinear", align_corners=False)
    return large[0].permute(1, 2, 0).contiguous()


def _copied(image: Tensor) -> np.ndarray:
    """The image in memory of this process, an array nobody else holds."""
    array = _PINNED.taken(tuple(image.shape))
    torch.from_numpy(array).copy_(image)
    return array


def _pinned(shape: tuple[int, ...]) -> np.ndarray:
    # the device writes to page-locked memory several times as fast
    return torch.empty(shape, pin_memory=torch.cuda.is_available()).numpy()


_PINNED = Recycled(kept=4, new=_pinned)  # depth, its confidence, probabilities, normals
