"""How long the conditional random field takes over maps of a quarter, half and one million surfels.

    python benchmarks/refine.py [--classes 13]

The surfels lie on walls 4 mm apart, a little displaced, as a Kinect's map has them.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from semslam.cloud import SurfelCloud
from semslam.engine.labels.surfel_crf import CrfConfig, nearest_neighbours, refined_probabilities


def walls(count: int, classes: int, spacing: float = 0.004) -> SurfelCloud:
    """Square walls of 100,000 surfels each, two metres apart."""
    rng = np.random.default_rng(0)
    side = int(np.sqrt(100_000))
    index = np.arange(count)
    wall, within = index // side**2, index % side**2
    positions = np.column_stack([within % side, within // side, 2 / spacing * wall]) * spacing
    positions += rng.normal(scale=0.2 * spacing, size=positions.shape)
    labels = (within % side * 5 // side + rng.integers(0, 2, count)) % classes
    probabilities = np.full((count, classes), 0.5 / (classes - 1), np.float32)
    probabilities[index, labels] = 0.5
    normals = np.tile(np.float32([0, 0, 1]), (count, 1))
    return SurfelCloud(
        positions.astype(np.float32),
        normals,
        np.full(count, spacing, np.float32),
        np.full(count, 10, np.float32),
        rng.integers(100, 140, (count, 3)).astype(np.uint8),
        np.zeros(count, np.int32),
        np.zeros(count, np.int32),
        probabilities,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=13)
    classes = parser.parse_args().classes
    refined_probabilities(walls(1000, classes))  # compiled, or read from the cache
    config = CrfConfig()
    print(f"{config.neighbours} neighbours, {config.iterations} iterations, {classes} classes")
    for count in (250_000, 500_000, 1_000_000):
        cloud = walls(count, classes)
        began = time.perf_counter()
        nearest_neighbours(cloud.positions, config.neighbours)
        found = time.perf_counter()
        refined_probabilities(cloud, config)
        done = time.perf_counter() - found
        print(f"{count:>9,} surfels: {done:5.1f} s, of which finding neighbours {found - began:5.1f} s")


if __name__ == "__main__":
    main()
