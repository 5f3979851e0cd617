"""What size costs: maps four times larger than their budget of memory, and batches against a plain loop.

python benchmarks/scale.py [--only paging|batch]

paging: the room at four places, 50 m apart, and the first again; each frame is fused into a map in memory and into one
of which a quarter may stay there, one after the other, so that what else the machine does concerns both alike.
batch: the same small reconstructions by `semslam batch` and by a loop over `semslam reconstruct`.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from semslam.engine.chunks import CHUNK
from semslam.engine.fusion import Fusion
from semslam.engine.surfels import SURFEL_ARRAYS, MapConfig, SurfelMap
from semslam.frame import Observation
from sequences.room.room import RoomSequence

PLACES, FRAMES, APART = 4, 30, 50.0  # metres
CAPACITY = 20_000_000  # surfels
TASKS = 4


def resident() -> int:
    """Bytes of this process's maps in files that are in memory, as Linux counts them."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0]:
            ours = ".pages-" in line
        elif ours and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


def fused(maps: list[tuple[SurfelMap, Fusion]], views: list[Observation]) -> tuple[np.ndarray, list[int]]:
    """(N, maps) processor seconds of each frame in each map, and the resident bytes after each frame."""
    seconds, resident_bytes = [], []
    for number in range((PLACES + 1) * FRAMES):
        view = views[number % FRAMES]
        T = view.frame.T_world_camera.copy()
        T[0, 3] += APART * (number // FRAMES % PLACES)
        row = []
        for surfels, fusion in maps:
            began = time.process_time()
            fusion.fuse(surfels, fusion.prepare(view), T, number)
            fusion.predict(surfels, T)
            row.append(time.process_time() - began)
        seconds.append(row)
        resident_bytes.append(resident() if sys.platform == "linux" else 0)
    return np.array(seconds), resident_bytes


def paging() -> None:
    room = RoomSequence(frames=FRAMES * 15)  # a round, of which every 15th frame is taken
    frames = [room[i] for i in range(0, FRAMES * 15, 15)]
    views = [Observation(frame, room.camera, frame.color, frame.depth) for frame in frames]
    whole = SurfelMap(13, MapConfig(CAPACITY))
    fused([(whole, Fusion(room.camera))], views)  # compiles, and tells the size
    size = whole.n_chunks * CHUNK * whole.bytes_per_surfel
    budget = size / PLACES
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        paged, plain = (
            SurfelMap(13, MapConfig(CAPACITY, memory=f"{budget / 1e6:.3f}MB")),
            SurfelMap(13, MapConfig(CAPACITY)),
        )
        paged.page_to(Path(folder))
        seconds, bytes_there = fused([(plain, Fusion(room.camera)), (paged, Fusion(room.camera))], views)
        slots = plain.slots()
        same = all(np.array_equal(getattr(plain, name)[slots], getattr(paged, name)[slots]) for name in SURFEL_ARRAYS)
    print(f"map of {size / 1e6:.0f} MB, {len(plain)} surfels; budget {budget / 1e6:.0f} MB; same bytes: {same}")
    print(f"in memory after a frame, at most: {max(bytes_there) / 1e6:.0f} MB")
    ratio = seconds[:, 1] / seconds[:, 0]
    print(
        f"processor time a frame, in memory {1e3 * np.median(seconds[:, 0]):.1f} ms; paged over in memory: "
        f"median {np.median(ratio):.2f}, of all frames together {seconds[:, 1].sum() / seconds[:, 0].sum():.2f}"
    )


def batch() -> None:
    words = ["--labels", "none", "--no-mesh"]
    sequences = [f"room:frames=10,width=160,height=120,seed={k}" for k in range(TASKS)]
    semslam = [sys.executable, "-m", "semslam.cli"]
    with tempfile.TemporaryDirectory() as folder:
        listing = Path(folder) / "list.txt"
        listing.write_text("\n".join(sequences) + "\n")
        command = "reconstruct " + " ".join(words)

        def loop() -> None:
            for k, sequence in enumerate(sequences):
                out = f"{folder}/loop{k}"
                subprocess.run(
                    [*semslam, "reconstruct", sequence, "--out", out, *words], check=True, stdout=subprocess.DEVNULL
                )

        def batched(jobs: int) -> None:
            out = f"{folder}/batch{jobs}"
            more = ["--command", command, "--jobs", str(jobs), "--out", out]
            subprocess.run([*semslam, "batch", str(listing), *more], check=True, stdout=subprocess.DEVNULL)

        loop()  # warms the disk's cache
        for name, run in (("loop", loop), ("batch, 1 job", lambda: batched(1)), ("batch, 2 jobs", lambda: batched(2))):
            for path in Path(folder).glob("loop*"):
                shutil.rmtree(path)
            began = time.perf_counter()
            run()
            print(f"{name:14} {TASKS / (time.perf_counter() - began) * 60:6.1f} tasks a minute")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["paging", "batch"])
    only = parser.parse_args().only
    for job in (paging, batch):
        if only in (None, job.__name__):
            job()


if __name__ == "__main__":
    main()
