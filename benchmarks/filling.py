"""What `--fill` adds to a map, and how far from the truth: on recordings of which a part of the depth is taken away.

    python benchmarks/filling.py [--data ../shared/data] [--only redkitchen|realsense_office] [--frames N]

The recording is mapped with all of its depth. Then every reading in a random 30 % of the cubes of 40 cm is taken out of
every frame, and the rest is mapped with the same poses, once with and once without filling. Completeness counts the
surfels of the first map in those cubes: the share of them that the second one has within 5 and 10 cm. Accuracy counts
the surfels that filling added in those cubes: their distance to the first map. Holes that a recording has by itself
cannot be judged so; they are counted. They are where a sensor fails, which filling may find harder than such cubes.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from semslam import config as configs
from semslam import poses
from semslam.metrics.nearest import Surface
from semslam.runs import networks
from semslam.runs.config import RunConfig
from semslam.runs.finished.finish import finish
from semslam.runs.reconstruct import prepare
from sequences.sequence import DerivedSequence

RECORDINGS = {"redkitchen": "dataset", "realsense_office": "tracked"}  # and the poses of the first map
CUBE, SHARE = 0.4, 0.3  # metres; of the cubes that lose their depth


def taken_away(points: np.ndarray) -> np.ndarray:
    """(...) bool: which world points (..., 3) lie in a cube that loses its depth."""
    cells = np.floor(points / CUBE).astype(np.int64) @ np.array([73856093, 19349663, 83492791])
    return (cells * 2654435761 >> 16) % 1000 < 1000 * SHARE


class WithoutCubes(DerivedSequence):
    """A sequence whose depth camera sees nothing in some of the cubes of space."""

    def __init__(self, whole, T_world_camera) -> None:
        super().__init__(whole)
        self.T_world_camera = T_world_camera

    def _changed(self, frame, index):
        return replace(frame, depth=self._without(frame.depth, index))

    def depth_of(self, index):
        return self._without(super().depth_of(index), index)

    def _without(self, depth, index):
        T = self.T_world_camera.get(index)
        if T is None or depth is None:
            return depth
        points = poses.transform(T, self.camera.backproject(depth).reshape(-1, 3).astype(np.float64))
        return np.where(taken_away(points).reshape(depth.shape), np.float32(0), depth)


def mapped(config: RunConfig, network, folder: str, sequence=None):
    """A finished run in a new folder below the given one, and its metrics, NaN where there is nothing to measure."""
    run = prepare(config, Path(tempfile.mkdtemp(dir=folder)) / "run", network=network, sequence=sequence)
    for _ in run:
        pass
    return run, {name: np.nan if value is None else value for name, value in finish(run, mesh=False).items()}


def measured(data: Path, name: str, network, frames: int | None, folder: str) -> None:
    """Print the rows of a recording, whose runs are made in the folder."""
    changes = {"sequence": str(data / name), "poses": RECORDINGS[name], "slam.perception.labels": "none"}
    config = configs.updated(RunConfig(), changes | {"frames": frames}, "benchmark")
    whole, _ = mapped(config, network, folder)
    truth = whole.slam.cloud().positions
    surface, wanted = Surface(truth), truth[taken_away(truth)]
    holed = WithoutCubes(whole.sequence, whole.progress.posed())
    given = replace(config, poses=str(whole.folder.trajectory))
    results = {fill: mapped(replace(given, fill=fill), network, folder, holed) for fill in (False, True)}
    for fill, (run, _) in results.items():
        apart = Surface(run.cloud().positions).distance(wanted)
        shares = ", ".join(f"{100 * np.mean(apart < limit):.1f} % within {100 * limit:.0f} cm" for limit in (0.05, 0.1))
        print(
            f"{name:<18} {'filled' if fill else 'plain':<7} surfaces taken away that the map has: {shares}", flush=True
        )
    run, metrics = results[True]
    added = run.filled.positions
    off = surface.distance(added[taken_away(added)])
    print(
        f"{name:<18} filled  {metrics['surfels_filled']} surfels; in the cubes {100 * np.mean(off):.1f} cm off (median "
        f"{100 * np.median(off):.1f}), {100 * np.mean(off < 0.05):.0f} % within 5 cm; hidden pixels: "
        f"{100 * metrics['fill_hidden_share']:.0f} % filled, {100 * metrics['fill_hidden_mean_m']:.1f} cm off (median "
        f"{100 * metrics['fill_hidden_median_m']:.1f}), {metrics['fill_hidden_deviation']:.1f} of the standard "
        f"deviations told",
        flush=True,
    )
    metrics = mapped(replace(config, fill=True), network, folder)[1]
    print(
        f"{name:<18} its own holes: {100 * metrics['fill_holes_share']:.0f} % of the pixels of "
        f"{metrics['fill_keyframes']} keyframes, {100 * metrics['fill_filled_share']:.0f} % of them filled: "
        f"{metrics['surfels_filled']} surfels besides {metrics['surfels']}; {metrics['fill_seconds']:.0f} s",
        flush=True,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", choices=tuple(RECORDINGS))
    parser.add_argument("--frames", type=int)
    arguments = parser.parse_args()
    network = networks.predictor("nyu13", None, None, (480, 640))
    for name in [arguments.only] if arguments.only else RECORDINGS:
        with tempfile.TemporaryDirectory() as folder:
            measured(arguments.data, name, network, arguments.frames, folder)


if __name__ == "__main__":
    cv2.setNumThreads(2)
    main()
