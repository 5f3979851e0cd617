"""From the network's small outputs to images of the size that the map wants, at little cost.

Soft-max and the merging of classes happen at the network's resolution, a quarter of the image's or less; only then
are images resized, bilinearly, which keeps the sum of the probabilities at one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from threading import Lock

import cv2
import numpy as np
import torch

from semslam.camera import KINECT_FOCAL

SLANT = 4.0  # tangent of the angle of incidence that halves the confidence: 76 degrees
MOST_BYTES = 400_000_000  # of arrays that are given out again: eight images of 40 classes at 640x480
BORDER_CELLS = 2.0  # output cells from the image's border within which the confidence falls to a half


def merging(table: np.ndarray) -> np.ndarray:
    """(C, K) float32 matrix that sums the probabilities of the classes c with the same `table[c]`."""
    matrix = np.zeros((len(table), int(table.max()) + 1), np.float32)
    matrix[np.arange(len(table)), table] = 1
    return matrix


def class_probabilities(
    scores: np.ndarray, size: tuple[int, int], merge: np.ndarray | None = None, temperature: float = 1.0
) -> np.ndarray:
    """Probabilities (H, W, K) float32 at `size` (W, H) from scores (h, w, C) before soft-max.

    Args:
        merge: (C, K) from `merging`; None keeps the C classes.
        temperature: scores are divided by it; above 1 the network is trusted less.
    """
    with torch.inference_mode():
        logits = torch.from_numpy(scores)
        probabilities = torch.softmax(logits if temperature == 1.0 else logits / temperature, dim=-1)
        if merge is not None:
            probabilities = probabilities @ torch.from_numpy(merge)
    return resized(probabilities.numpy(), size)


def depth(output: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Depth (H, W) float32 in metres at `size` (W, H) from the network's (h, w, 1), which may be negative."""
    return resized(np.abs(output[..., 0]), size)


def normals(output: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Unit normals (H, W, 3) float32 at `size` (W, H) from the network's (h, w, 3) of any length."""
    with torch.inference_mode():
        return torch.nn.functional.normalize(torch.from_numpy(resized(output, size)), dim=-1, eps=1e-6).numpy()


def usual_focal(width: int, height: int) -> float:
    """The focal length of a Kinect, whose longer side is the image's, in widths of the image."""
    return KINECT_FOCAL * max(width, height) / width


def depth_confidence(output: np.ndarray, size: tuple[int, int], focal: float = KINECT_FOCAL) -> np.ndarray:
    """How far to believe the predicted depth, (H, W) float32 in 0..1 at `size` (W, H); from the network's (h, w, 1).
    focal: length in widths of the image.

    The change of ln z per radian of viewing angle is the tangent of the angle under which a surface is seen. A
    network smears occluding edges into slopes that no real surface is seen under, so steep ones are doubted:
    confidence = 1 / (1 + (tan / 4)^2), of the steepest slope within one cell. On NYUv2's validation images the
    variance of the local relative error grows about so. It falls to a half at the image's border, where the network
    sees only half of the surroundings.
    """
    height, width = output.shape[:2]
    logarithm = np.log(np.maximum(np.abs(output[..., 0]), 1e-2)).astype(np.float32)
    padded = cv2.copyMakeBorder(logarithm, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    across, down = padded[1:-1, 2:] - padded[1:-1, :-2], padded[2:, 1:-1] - padded[:-2, 1:-1]
    tangent = np.sqrt(across**2 + down**2) * np.float32(0.5 * focal * width)
    tangent = cv2.dilate(tangent, np.ones((3, 3), np.uint8))  # both sides of the slope are equally wrong
    confidence = 1 / (1 + (tangent / np.float32(SLANT)) ** 2)
    rows, columns = (_from_border(count) for count in (height, width))
    return resized(confidence * np.minimum(rows[:, None], columns), size)


def _from_border(count: int) -> np.ndarray:
    """(count,) factors: a half at both ends, 1 from `BORDER_CELLS` on."""
    places = np.arange(count)
    return np.minimum(0.5 + 0.5 * np.minimum(places, count - 1 - places) / BORDER_CELLS, 1).astype(np.float32)


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w) or (h, w, C) at `size` (W, H), bilinearly, pixel centres on pixel centres; an array nobody else holds."""
    shape = (size[1], size[0], *image.shape[2:])
    target = _LARGE.taken(shape) if image.dtype == np.float32 else None
    return cv2.resize(image, size, dst=target, interpolation=cv2.INTER_LINEAR)


class Recycled:
    """Float32 arrays that are given out again once nobody holds them.

    Probabilities of 40 classes at 640x480 are 49 MB, which the C library asks the kernel for anew each time: clearing
    the pages took as long as computing what stands in them. Those of larger images are not kept beyond `most_bytes`.
    """

    def __init__(
        self, kept: int, most_bytes: int = MOST_BYTES, new: Callable[[tuple[int, ...]], np.ndarray] | None = None
    ) -> None:
        self._kept, self._most_bytes = kept, most_bytes
        self._new = new or (lambda shape: np.empty(shape, np.float32))
        self._arrays: list[np.ndarray] = []  # the one given out last comes last
        self._lock = Lock()

    def taken(self, shape: tuple[int, ...]) -> np.ndarray:
        """An array of this shape; what it holds is left over."""
        with self._lock:
            array = self._free(shape)
            sizes = np.cumsum([array.nbytes, *(other.nbytes for other in reversed(self._arrays))])
            fitting = min(int((sizes <= self._most_bytes).sum()), self._kept)
            self._arrays = [*self._arrays, array][-fitting:] if fitting else []
            return array

    def _free(self, shape: tuple[int, ...]) -> np.ndarray:
        for place in reversed(range(len(self._arrays))):
            # the list and the argument of the call hold it; a view of it or a tensor on it would be a third
            if self._arrays[place].shape == shape and sys.getrefcount(self._arrays[place]) == 2:
                return self._arrays.pop(place)
        return self._new(shape)


_LARGE = Recycled(kept=16)  # depth, its confidence, probabilities, normals; of predictions that are kept for later, too
