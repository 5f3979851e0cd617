"""Finding a lost camera again: keyframes with compact codes, compared with the frame that is lost.

Codes are randomised ferns (Glocker et al., TVCG 2015): at a few hundred random places of a small image, is red, green,
blue, depth above a random threshold? Frames of the same view share most answers. The pose of the best keyframes is
then only a start: what the map looks like from there has to fit the frame, geometry and colour, or it is no match.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from semslam.frame import Observation

COUNT = 500  # ferns
FAR = 4.0  # metres: the largest threshold of depth
FARTHEST = 0.6  # dissimilarity of a keyframe that is still worth trying
SHRINK = 8  # codes see the image at an eighth of its size
NO_CODE = np.uint8(255)  # where depth is missing


class Ferns:
    """Random tests on images of any size, always the same ones."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._places = rng.random((COUNT, 2))  # (v, u), 0..1 of the image
        self._thresholds = np.column_stack([rng.uniform(0, 255, (COUNT, 3)), rng.uniform(0.4, FAR, COUNT)])

    @property
    def nothing(self) -> np.ndarray:
        """The code of a keyframe of which nobody knows what it looked like: it is like no other."""
        return np.full(COUNT, NO_CODE)

    def code(self, observation: Observation) -> np.ndarray:
        """(COUNT,) uint8: four answers a fern as bits, NO_CODE where there is no depth."""
        import cv2

        height, width = observation.depth.shape
        rows, columns = max(height // SHRINK, 1), max(width // SHRINK, 1)
        color = cv2.resize(observation.color, (columns, rows), interpolation=cv2.INTER_AREA)
        depth = observation.depth[SHRINK // 2 :: SHRINK, SHRINK // 2 :: SHRINK][:rows, :columns]
        v = np.minimum((self._places[:, 0] * depth.shape[0]).astype(int), depth.shape[0] - 1)
        u = np.minimum((self._places[:, 1] * depth.shape[1]).astype(int), depth.shape[1] - 1)
        values = np.column_stack([color[v, u], depth[v, u]])
        code = ((values > self._thresholds) @ np.array([1, 2, 4, 8])).astype(np.uint8)
        code[depth[v, u] <= 0] = NO_CODE
        return code


@dataclass(eq=False)
class Keyframes:
    """Frames to come back to: what they looked like, when they were, and where. Times are frame indices."""

    ferns: Ferns = field(default_factory=Ferns)
    indices: list[int] = field(default_factory=list)
    T_world_camera: list[np.ndarray] = field(default_factory=list)
    codes: list[np.ndarray] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.indices)

    def add(self, index: int, T_world_camera: np.ndarray, code: np.ndarray) -> None:
        self.indices.append(index)
        self.T_world_camera.append(T_world_camera)
        self.codes.append(code)

    def dissimilarity(self, code: np.ndarray) -> np.ndarray:
        """(N,) share of ferns, of those with depth in both frames, that answer otherwise; 1 if too few have depth."""
        if not self.codes:
            return np.zeros(0)
        codes = np.stack(self.codes)
        both = (codes != NO_CODE) & (code != NO_CODE)
        known = both.sum(axis=1)
        differs = (both & (codes != code)).sum(axis=1)
        return np.where(known > len(code) // 8, differs / np.maximum(known, 1), 1.0)

    def nearest(self, code: np.ndarray, count: int) -> list[int]:
        """Positions in this list of the most similar keyframes, best first; none above FARTHEST dissimilarity."""
        dissimilarity = self.dissimilarity(code)
        order = np.argsort(dissimilarity, kind="stable")[:count]
        return [int(k) for k in order if dissimilarity[k] <= FARTHEST]

    def state(self) -> dict[str, np.ndarray]:
        """As arrays, to be kept; the ferns are always the same."""
        return {
            "indices": np.array(self.indices, np.int64),
            "poses": np.array(self.T_world_camera, np.float64).reshape(-1, 4, 4),
            "codes": np.array(self.codes, np.uint8),
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Replace the keyframes by those of a `state`."""
        self.indices = [int(i) for i in state["indices"]]
        self.T_world_camera = list(state["poses"])
        self.codes = list(state["codes"])
