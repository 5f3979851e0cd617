"""What size costs: maps four times larger than their budget of memory, and batches against a plain loop.

python benchmarks/scale.py [--only paging|batch]

paging: the room at four places, 50 m apart, and the first again; each frame is fused into a map in memory and into one
of which a quarter may stay there, one after the other, so that what else the machine does concerns both alike. Then
whole runs of them, with the peak of memory in each phase.
batch: the same small reconstructions by `semslam batch` and by a loop over `semslam reconstruct`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np

from semslam import poses
from semslam.comparison.making import peak_memory, reset_peak_memory
from semslam.engine.chunks import CHUNK
from semslam.engine.fusion import Fusion
from semslam.engine.surfels import SURFEL_ARRAYS, MapConfig, SurfelMap
from semslam.files.writing import write_json
from semslam.frame import Frame, Observation
from semslam.judging.figures import table
from semslam.judging.run import evaluate_run
from semslam.looking.picture import render_png
from semslam.looking.viewed import viewed_run
from semslam.metrics.surface import points_reference
from semslam.perception import PerceptionConfig
from semslam.runs import networks
from semslam.runs.config import RunConfig
from semslam.runs.export import export_run
from semslam.runs.finished.finish import finish
from semslam.runs.finished.finished_map import FinishedMap
from semslam.runs.finished.localise import LocalisedFrame, draw
from semslam.runs.folder import RunFolder
from semslam.runs.reconstruct import prepare
from semslam.runs.refine import refine
from semslam.runs.relabel import relabel
from semslam.slam import Slam, SlamConfig
from semslam.tracking.relocalisation.localisation import Localisation
from sequences.room.room import RoomSequence
from sequences.sequence import Sequence

PLACES, FRAMES, APART = 4, 30, 50.0  # metres
FEW = 3  # frames at each place in a whole run, whose end needs several times the memory of its map
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
    views = [Observation.of(frame) for frame in frames]
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


class Places(Sequence):
    """The room at several places, one after the other, and the first one again; poses are given."""

    has_depth = True

    def __init__(self) -> None:
        self.room = RoomSequence(frames=FEW * 150)
        self.name, self.camera, self.label_set = "places", self.room.camera, self.room.label_set
        self.timestamps = np.arange((PLACES + 1) * FEW) / 30
        self.poses = tuple(self._pose(i) for i in range(len(self.timestamps)))

    def _pose(self, index: int) -> np.ndarray:
        T = np.array(self.room.poses[index % FEW * 150])
        T[0, 3] += APART * (index // FEW % PLACES)
        return T

    def __getitem__(self, index: int) -> Frame:
        i = self._checked(index)
        frame = self.room[i % FEW * 150]
        return replace(frame, index=i, timestamp=float(self.timestamps[i]), T_world_camera=self.poses[i])

    def some_points(self) -> np.ndarray:
        """(N, 3) float32 metres, of the first frame's surfaces."""
        frame = self[0]
        seen = frame.depth > 0
        return poses.transform(self.poses[0], frame.camera.backproject(frame.depth)[seen]).astype(np.float32)


def phases(memory: str, out: str) -> None:
    """A whole run, with the peak of this process's memory in each phase: what it holds before the first frame is
    printed, too."""

    def told(phase: str) -> None:
        print(f"{phase} {peak_memory() or 0}", flush=True)
        reset_peak_memory()

    perception = PerceptionConfig(labels="truth")
    config = RunConfig(
        sequence="places",
        poses="dataset",
        slam=SlamConfig(perception, map=MapConfig(CAPACITY, memory=None if memory == "all" else memory)),
    )
    places = Places()
    for frame in (places[0], places[1]):  # compiles
        Slam(places.camera, config.slam, label_set="nyu40").step(frame)
    run = prepare(config, Path(out), sequence=places, checkpoint=0)
    told("before")
    for step in run:
        if step is not None and step.frame.index == len(places) // 2:
            run.save_checkpoint()
    told("frames and a checkpoint")
    run.save()
    told("saving the map")
    del run, step
    run = prepare(config, Path(out), sequence=places, resume=True)
    told("resuming")
    finish(run, mesh=False)
    told("files and pictures at the end")
    print(f"size {run.slam.surfels.n_chunks * CHUNK * run.slam.surfels.bytes_per_surfel:.0f}")
    del run
    reset_peak_memory()
    for _ in export_run(out, Path(out, "export")):
        pass
    told("export")
    render_png(Path(out, "view.png"), viewed_run(out), coloring="label")
    told("view --png")
    finished = FinishedMap(out, paged=True)
    draw(Path(out, "found.png"), finished, [located_at(places.poses[0])])
    told("localise --figure")
    del finished
    figures = evaluate_run(out, sequence=places, reference=points_reference(places.some_points(), "some points"))
    write_json(Path(out, "evaluated.json"), figures.figures)
    told("evaluate")
    with (
        patch.object(networks, "predictor", lambda *_: OneClass()),
        patch.object(RunFolder, "open_sequence", lambda *_: places),
    ):
        relabel(out, f"{out}-relabelled")
    told("relabel")
    refine(out, f"{out}-refined")
    told("refine")


class OneClass:
    """A network that knows one class."""

    engine, same_for_any_threads = "none", True

    def class_probabilities(self, image: np.ndarray, size: tuple[int, int], mirrored: bool = False) -> np.ndarray:
        probabilities = np.full((size[1], size[0], 13), 0.05, np.float32)
        probabilities[..., 3] = 0.4
        return probabilities


def located_at(T_world_camera: np.ndarray) -> LocalisedFrame:
    return LocalisedFrame("0", 0.0, Localisation(T_world_camera, confidence=1.0))


def whole_run() -> None:
    """Print the peaks of `phases` beyond what the process held before, with the map in memory and with a quarter."""

    def measured(memory: str, out: str) -> dict[str, float]:
        words = [sys.executable, __file__, "--phases", memory, out]
        told = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        return {name: float(number) for name, _, number in (line.rpartition(" ") for line in told.splitlines())}

    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        whole = measured("all", f"{folder}/all")
        budget = whole["size"] / PLACES
        paged = measured(f"{budget / 1e6:.3f}MB", f"{folder}/paged")
        first, second = (Path(folder, name, "map.ply").read_bytes() for name in ("all", "paged"))
        same = first == second
        figures, others = (table(json.loads(Path(folder, n, "evaluated.json").read_text())) for n in ("all", "paged"))
        again = [Path(folder, f"{name}-relabelled", "map.ply").read_bytes() for name in ("all", "paged")]
        made = [p.relative_to(f"{folder}/all") for p in Path(folder, "all", "export").rglob("*.p[lc]*")]
        same_exports = all(Path(folder, "all", p).read_bytes() == Path(folder, "paged", p).read_bytes() for p in made)
    print(
        f"a map of {whole['size'] / 1e6:.0f} MB, budget {budget / 1e6:.0f} MB; same map.ply: {same}; same "
        f"export of surfels and classes: {same_exports}; same relabelled map.ply: {again[0] == again[1]}; same "
        f"figures: {figures == others}"
    )
    for phase in whole:
        if phase not in ("before", "size"):
            peaks = [(found[phase] - found["before"]) / 1e6 for found in (whole, paged)]
            print(f"{phase:30} {peaks[0]:6.0f} MB in memory, {peaks[1]:6.0f} MB paged (peak RSS above the start's)")


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
    parser.add_argument("--phases", nargs=2, metavar=("MEMORY", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.phases is not None:
        phases(*options.phases)
        return
    for name, jobs in (("paging", (paging, whole_run)), ("batch", (batch,))):
        if options.only in (None, name):
            for job in jobs:
                job()


if __name__ == "__main__":
    main()
