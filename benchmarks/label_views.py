"""How sure fused labels are after 1, 5 and 20 views of each of NYUv2's 60 validation images, and how often right.

    python benchmarks/label_views.py [--weights FILE] [--data ../shared/data/nyuv2]

There is one image of each place, so views are made of it: enlarged by 0.7 to 1.4 (as a step of up to a metre at its
depth does), shifted (as a turn of the camera does) and mirrored (to which no view corresponds). They show nothing that
the image does not, so they are fused both as those steps and turns and as views from one place. Every fourth pixel each
way is a surfel at its true depth.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from label_fusion import CLASSES, probabilities

from networks.augmentation import PADDING
from networks.inference.predictor import Predictor
from networks.joint import checkpoints
from networks.training.data import Samples, Source
from semslam import poses
from semslam.engine.chunks import CHUNK
from semslam.engine.labels.evidence import row_width
from semslam.engine.labels.label_fusion import LabelFusion, label_fusion
from semslam.images.resizing import resized_depth, resized_ids
from semslam.labels import remap_labels
from semslam.metrics.segmentation import Calibration
from sequences.images.labelled_images import NYU_CAMERA

VIEWS = (1, 5, 20)
EVERY = 4  # pixels each way that a surfel of the validation images stands for
MOVING = {"as steps and turns": 1.0, "as views from one place": 0.0}  # share of the camera's motion that is told


def after_views(predictor: Predictor, data: Path, temperature: float) -> dict[tuple[str, int], Calibration]:
    """Calibration of fused labels of the validation images, by `MOVING` and the number of views of `VIEWS`."""
    found = {(told, count): Calibration() for count in VIEWS for told in MOVING}
    for number, image in enumerate(Samples(Source(str(data), split="val"), 40)):
        assert image.labels is not None and image.depth is not None
        camera = NYU_CAMERA.resized(image.color.shape[1] // EVERY, image.color.shape[0] // EVERY)
        size = camera.width, camera.height
        depth = resized_depth(image.depth, size)
        positions = camera.backproject(depth).reshape(-1, 3)
        truth = remap_labels(resized_ids(image.labels, size), "nyu40", "nyu13")
        maps = {told: Pixels(depth.size) for told in MOVING}
        rng = np.random.default_rng([1, number])
        for view in range(max(VIEWS)):
            zoom, shift, mirror = (1.0, np.zeros(2), False) if view == 0 else random_view(rng)
            seen = seen_again(predictor, image.color, affine(image.color.shape, zoom, shift, mirror), size, temperature)
            ahead = float(np.median(depth[depth > 0])) * (1 - 1 / zoom)
            turn = np.arctan(shift * camera.width / camera.fx)
            for told, share in MOVING.items():
                maps[told].fuse(seen, poses.exp(share * np.array([0, 0, ahead, -turn[1], turn[0], 0])))
                if (told, view + 1) in found:
                    p = maps[told].probabilities(positions)
                    found[told, view + 1].add(p.reshape(*camera.shape, CLASSES), truth)
    return found


class Pixels:
    """Surfels without a map: one for each pixel of an image, seen by its views."""

    def __init__(self, count: int) -> None:
        self.chunks = np.arange(-(-count // CHUNK), dtype=np.int32)
        rows = np.zeros((len(self.chunks) * CHUNK, row_width(CLASSES)), np.uint16)
        # all that fusing labels asks of a map
        counts = np.full(len(self.chunks), CHUNK, np.int32)
        self.surfels: Any = SimpleNamespace(num_classes=CLASSES, counts=counts, evidence=rows)
        self.pixel_of = np.where(np.arange(len(rows)) < count, np.arange(len(rows)), -1).astype(np.int32)
        self.fusion: LabelFusion = label_fusion()

    def fuse(self, image: np.ndarray, T_world_camera: np.ndarray) -> None:
        self.fusion.fuse(self.surfels, self.chunks, self.pixel_of, image, T_world_camera)

    def probabilities(self, positions: np.ndarray) -> np.ndarray:
        return self.fusion.read(self.surfels.evidence[: len(positions)], CLASSES, positions)


def random_view(rng: np.random.Generator) -> tuple[float, np.ndarray, bool]:
    """Zoom, shift in widths of the image, and whether it is mirrored."""
    return float(np.exp(rng.uniform(np.log(0.7), np.log(1.4)))), rng.uniform(-0.15, 0.15, 2), bool(rng.uniform() < 0.5)


def affine(shape: tuple[int, ...], zoom: float, shift: np.ndarray, mirror: bool) -> np.ndarray:
    """(2, 3) from pixels of the image to those of the view: zoomed about the middle, shifted, mirrored."""
    middle = (np.array([shape[1], shape[0]]) - 1) / 2
    flip = np.diag([-1.0 if mirror else 1.0, 1.0])
    return np.column_stack([zoom * flip, middle + flip @ (shift * shape[1] - zoom * middle)])


def seen_again(
    predictor: Predictor, color: np.ndarray, to_view: np.ndarray, size: tuple[int, int], temperature: float
) -> np.ndarray:
    """(H, W, 13) probabilities of the image's own pixels at `size`, as a view says them; 0 where it does not see."""
    height, width = color.shape[:2]
    view = cv2.warpAffine(color, to_view, (width, height), flags=cv2.INTER_AREA, borderValue=PADDING)
    of_view = probabilities(predictor.outputs(view)[0], (width, height), temperature)
    grid = np.stack(np.meshgrid(np.arange(size[0]), np.arange(size[1])), axis=-1)
    pixels = (grid + 0.5) * np.array([width / size[0], height / size[1]]) - 0.5
    u, v = np.moveaxis(np.rint(pixels @ to_view[:, :2].T + to_view[:, 2]).astype(int), -1, 0)
    inside = (u >= 0) & (v >= 0) & (u < width) & (v < height)
    seen = of_view[np.clip(v, 0, height - 1), np.clip(u, 0, width - 1)]
    return np.where(inside[..., None], seen, np.float32(0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default=None, help="default: the bundled ones")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/nyuv2"))
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    network, metadata = checkpoints.load(arguments.weights)
    predictor, temperature = Predictor(network, metadata), float(metadata.get("temperature", 1.0))
    for (told, count), calibration in after_views(predictor, arguments.data, temperature).items():
        figures, pixels = calibration.scores(), calibration.pixels.sum()
        right, sure = calibration.hits.sum() / pixels, calibration.confidence_sum.sum() / pixels
        print(
            f"{count:3} views, {told:23}: ECE {100 * figures.ece:.1f} %, {100 * right:.1f} % right, "
            f"{100 * sure:.1f} % sure, NLL {figures.negative_log_likelihood:.2f}"
        )


if __name__ == "__main__":
    main()
