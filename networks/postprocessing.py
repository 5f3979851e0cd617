"""From the network's small outputs to images of the size that the map wants, at little cost.

Soft-max and the merging of classes happen at the network's resolution, a quarter of the image's or less; only then
are images resized, bilinearly, which keeps the sum of the probabilities at one.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch

_CREASE = 0.02  # relative bend of the inverse depth, between neighbouring output cells, that halves the confidence
_BORDER_CELLS = 2.0  # output cells from the image's border within which the confidence falls to a half


def merging(table: np.ndarray, num_classes: int | None = None) -> np.ndarray:
    """(C, K) float32 matrix that sums the probabilities of the classes c with the same `table[c]`."""
    count = int(table.max()) + 1 if num_classes is None else num_classes
    matrix = np.zeros((len(table), count), np.float32)
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


def depth_confidence(output: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """How far to believe the predicted depth, (H, W) float32 in 0..1 at `size` (W, H); from the network's (h, w, 1).

    On any plane, however slanted, inverse depth is affine in the image, so that its second differences, relative to
    its value, vanish; at occluding edges, which a network smears into slopes that no surface has, and at creases,
    they do not. The confidence is 1 / (1 + (bend / 0.02)^2), and it falls to a half at the image's border,
    where the network sees only half of the surroundings.
    """
    inverse = 1 / np.maximum(np.abs(output[..., 0]), 1e-2)
    padded = cv2.copyMakeBorder(inverse, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    across = padded[1:-1, :-2] + padded[1:-1, 2:] - 2 * inverse
    down = padded[:-2, 1:-1] + padded[2:, 1:-1] - 2 * inverse
    across[:, [0, -1]], down[[0, -1]] = 0, 0  # nothing is known of what lies beyond
    bend = np.maximum(np.abs(across), np.abs(down)) / inverse
    bend = cv2.dilate(bend, np.ones((3, 3), np.uint8))  # the slope's both sides are equally wrong
    confidence = 1 / (1 + (bend / _CREASE) ** 2)
    height, width = inverse.shape
    rows, columns = (_from_border(n) for n in (height, width))
    return resized((confidence * np.minimum(rows[:, None], columns)).astype(np.float32), size)


def _from_border(count: int) -> np.ndarray:
    """(count,) factors: a half at both ends, 1 from `_BORDER_CELLS` on."""
    places = np.arange(count)
    return np.minimum(0.5 + 0.5 * np.minimum(places, count - 1 - places) / _BORDER_CELLS, 1).astype(np.float32)


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w) or (h, w, C) at `size` (W, H), bilinearly, pixel centres on pixel centres; always a new array."""
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
