"""Hashes of seven maps, to show that a change of structure changes no byte: run it before and after, and compare.

    python benchmarks/same_maps.py [--data ../shared/data] [--only NAME]

Each line is the name of a run and the SHA-256 of its map.ply: the same for one machine and one set of versions.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

RUNS = {
    "kitchen-given-truth": ("redkitchen", "--poses", "dataset", "--labels", "truth"),
    "kitchen-tracked-predicted": ("redkitchen", "--poses", "tracked", "--labels", "predicted"),
    "living-room-tracked": ("icl_livingroom1", "--poses", "tracked", "--labels", "none"),
    "room-predicted-depth": ("room:frames=60", "--depth", "predicted"),
    "office-tracked": ("realsense_office", "--frames", "120", "--poses", "tracked", "--labels", "none"),
    # a sub-map is begun, and meets the first
    "room-lost-and-joined": (
        "room:frames=600,width=160,height=120",
        *["--every", "15", "--poses", "tracked", "--labels", "none"],
    ),
    "cafe-tracked": ("nyuv2_cafe", "--poses", "tracked", "--labels", "none"),
}


def main() -> None:
    """Make the maps, print their hashes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", choices=RUNS)
    arguments = parser.parse_args()
    for name, (sequence, *options) in RUNS.items():
        if arguments.only in (None, name):
            path = sequence if sequence.startswith("room") else str(arguments.data / sequence)
            with tempfile.TemporaryDirectory() as out:
                command = ["reconstruct", path, "--out", out, "--no-mesh", *options]
                subprocess.run([sys.executable, "-m", "semslam.cli", *command], check=True, stdout=subprocess.DEVNULL)
                digest = hashlib.sha256((Path(out) / "map.ply").read_bytes()).hexdigest()
            print(f"{name:<28}{digest}", flush=True)


if __name__ == "__main__":
    main()
