"""Colour alone where recordings are filmed otherwise: poses of each, and memory over a long one.

    python benchmarks/filmed_otherwise.py [--data ../shared/data] [--only pieces|memory]

pieces: poses of each recording's halves, of it backwards, every third frame, mirrored, cropped, smaller, blurred, dark
and noisy, and lit by a lamp that flickers; errors as in without_depth.py. memory: fr1/desk forth and back, 5,000
frames; resident memory, and the most there ever was, after each 1,000 frames tracked and fused.
"""

from __future__ import annotations

import semslam  # isort: skip  # noqa: F401  # before NumPy, as the command line does: its BLAS then has one thread

import argparse
import resource
import tempfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from without_depth import DESK, KITCHEN, LIVING, aligned_errors

from semslam import config as configs
from semslam.runs import networks
from semslam.runs.color_only.poses import track_images
from semslam.runs.config import RunConfig
from semslam.runs.reconstruct import prepare
from sequences import open_sequence
from sequences.selected import SelectedSequence

OFFICE = "realsense_office"


class ForthAndBack(SelectedSequence):
    """A recording played forth and back, again and again."""

    def __init__(self, whole, count: int) -> None:
        once = np.arange(len(whole))
        super().__init__(whole, np.resize(np.concatenate([once, once[-2:0:-1]]), count))
        self.timestamps, self.poses = np.arange(count) / 30.0, None


class Filmed(SelectedSequence):
    """A recording as it might have been filmed: frames in any order, 30 a second, images and camera changed."""

    def __init__(self, whole, indices, change=lambda image, i: image, camera=None, mirrored=False) -> None:
        """change: of an image (H, W, 3) with its number. mirrored: whether that mirrors it, and so the path."""
        super().__init__(whole, np.asarray(indices))
        self.change, self.camera = change, camera or whole.camera
        self.timestamps = np.arange(len(indices)) / 30.0
        mirror = np.diag([-1.0 if mirrored else 1.0, 1, 1, 1])
        if self.poses is not None:
            self.poses = tuple(None if T is None else mirror @ T @ mirror for T in self.poses)

    def color_of(self, index: int) -> np.ndarray:
        return self.change(super().color_of(index), index)


def dark_and_noisy(image: np.ndarray, number: int) -> np.ndarray:
    """A fifth of the light, and noise of 3 grey levels."""
    noise = np.random.default_rng(number).normal(0, 3, image.shape)
    return np.clip(0.2 * image + noise, 0, 255).astype(np.uint8)


def flickering(image: np.ndarray, number: int) -> np.ndarray:
    """Lit by a lamp at 50 Hz, 20 % up and down, through a rolling shutter of 28 ms."""
    times = number / 30 + np.linspace(0, 0.028, len(image))
    return np.clip(image * (1 + 0.2 * np.cos(2 * np.pi * 100 * times))[:, None, None], 0, 255).astype(np.uint8)


def filmed_otherwise(sequence) -> dict[str, Filmed]:
    """Variants of a recording by name."""
    every, camera = np.arange(len(sequence)), sequence.camera
    width, height = round(0.7 * camera.width), round(0.7 * camera.height)
    left, top = (camera.width - width) // 2, (camera.height - height) // 2
    inner = replace(camera, width=width, height=height, cx=camera.cx - left, cy=camera.cy - top)
    small = camera.resized(camera.width // 2, camera.height // 2)
    seen_in_mirror = replace(camera, cx=camera.width - 1 - camera.cx)

    def shrunk(image: np.ndarray, number: int) -> np.ndarray:
        return cv2.resize(image, (small.width, small.height), interpolation=cv2.INTER_AREA)

    return {
        "as it is": Filmed(sequence, every),
        "first half": Filmed(sequence, every[: len(every) // 2]),
        "second half": Filmed(sequence, every[len(every) // 2 :]),
        "backwards": Filmed(sequence, every[::-1]),
        "every third": Filmed(sequence, every[::3]),
        "mirrored": Filmed(sequence, every, lambda x, i: np.ascontiguousarray(x[:, ::-1]), seen_in_mirror, True),
        "middle 70 %": Filmed(sequence, every, lambda x, i: x[top : top + height, left : left + width].copy(), inner),
        "half the size": Filmed(sequence, every, shrunk, small),
        "blurred": Filmed(sequence, every, lambda x, i: cv2.GaussianBlur(x, (0, 0), 2)),
        "dark": Filmed(sequence, every, dark_and_noisy),
        "flickering": Filmed(sequence, every, flickering),
    }


def pieces(data: Path, network) -> None:
    """Poses of recordings filmed otherwise."""
    for name in (KITCHEN, LIVING, DESK, OFFICE):
        for change, sequence in filmed_otherwise(open_sequence(data / name)).items():
            found = track_images(sequence, network)
            print(f"{name:<18} {change:<14} {aligned_errors(sequence, found)}; {found.keyframes} keyframes", flush=True)


def memory(folder: Path, network, count: int = 5000) -> None:
    """Memory over many frames."""
    told = {count * n // 5 for n in range(1, 6)}
    done = {"tracked": 0, "fused": 0}

    def report(stage: str) -> None:
        done[stage] += 1
        if done[stage] in told:
            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            now = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
            print(f"{folder.name:<18} {done[stage]} frames {stage}: {now:.0f} MB, at most {most:.0f} MB", flush=True)

    changes = {"sequence": str(folder), "slam.perception.depth": "predicted", "slam.perception.labels": "none"}
    config = configs.updated(RunConfig(), changes | {"poses": "tracked"}, "benchmark")
    with tempfile.TemporaryDirectory() as out:
        run = prepare(
            config,
            Path(out) / "run",
            network=network,
            sequence=ForthAndBack(open_sequence(folder), count),
            report=lambda: report("tracked"),
        )
        for _ in run:
            report("fused")
        lost, fused, surfels = len(run.progress.lost), run.progress.fused, len(run.cloud())
    print(f"{folder.name:<18} {lost} of {count} frames lost, {fused} keyframes fused, {surfels} surfels")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", choices=("pieces", "memory"))
    arguments = parser.parse_args()
    network = networks.predictor("nyu13", None, None, (480, 640))
    if arguments.only != "memory":
        pieces(arguments.data, network)
    if arguments.only != "pieces":
        memory(arguments.data / DESK, network)


if __name__ == "__main__":
    cv2.setNumThreads(2)
    main()
