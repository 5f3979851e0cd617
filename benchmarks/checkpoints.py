"""What a checkpoint of a large map costs.

    python benchmarks/checkpoints.py [--surfels 5000000]

Surfels on ten walls are saved: all of them at first, then after nothing has changed, after one wall was seen again, and
after a closed loop has moved everything. Each line is seconds of wall time, of the main thread's processor time, and
the share of the latter in the 30 seconds between two checkpoints.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from semslam.engine.surfels import SURFEL_ARRAYS, MapConfig, SurfelMap
from semslam.runs.run import CHECKPOINT
from semslam.runs.storage.checkpoint import Checkpoint

WALLS, CLASSES = 10, 13


def walls(count: int) -> SurfelMap:
    """A map of `count` surfels on square walls, 3 m apart."""
    rng, surfels = np.random.default_rng(0), SurfelMap(CLASSES, MapConfig(max_surfels=2 * count))
    side = np.sqrt(count / WALLS) * 0.005  # metres: a surfel every 5 mm
    for wall in range(WALLS):
        points = np.zeros((count // WALLS, 3), np.float32)
        points[:, :2], points[:, 2] = rng.uniform(0, side, (len(points), 2)), 3 * wall
        slots = surfels.insert(points)
        for name in SURFEL_ARRAYS:
            getattr(surfels, name)[slots] = 1
        surfels.position[slots, :3] = points
    return surfels


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--surfels", type=int, default=5_000_000)
    surfels = walls(parser.parse_args().surfels)
    slots = surfels.slots()

    def seen_again(wall: int) -> None:
        seen = slots[surfels.position[slots, 2] == 3 * wall]
        surfels.normal[seen, 3] += 1
        surfels.seen[seen, 1] += 1
        surfels.position[seen, 0] += 1e-4
        surfels.evidence[seen] += 1

    def moved() -> None:
        surfels.position[slots, :3] += 1e-3
        surfels.normal[slots, :3] *= 0.5

    with tempfile.TemporaryDirectory() as folder:
        Checkpoint(Path(folder) / "other").save(SurfelMap(1), {})  # compiles
        checkpoint = Checkpoint(Path(folder) / "checkpoint")
        steps = [("all", None), ("nothing changed", None), *(("a wall seen again", seen_again) for _ in range(3))]
        for k, (name, change) in enumerate([*steps, ("a loop closed", lambda _: moved())]):
            if change is not None:
                change(k)
            began = time.perf_counter(), time.thread_time()
            checkpoint.save(surfels, {})
            wall, busy = time.perf_counter() - began[0], time.thread_time() - began[1]
            print(f"{name:<20}{wall:8.2f} s{busy:8.2f} s{busy / CHECKPOINT:8.1%}", flush=True)


if __name__ == "__main__":
    main()
