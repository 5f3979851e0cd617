"""The fusion step beside gradslam's PointFusion and Open3D's VoxelBlockGrid, and how its cost grows with the map.

    python benchmarks/fusion.py [--data ../shared/data/redkitchen] [--threads 2] [--prototype FILE]

All figures are medians of one process; what counts are the ratios: frame by frame the two take turns. On a machine that
others use --threads 1 counts processor time, of which waiting is no part. --prototype: a rough Numba engine without
filtering, tracking or loops, the speed to reach. gradslam is optional: pip install --no-deps
gradslam kornia kornia_rs natsort plotly (its compiled nearest-neighbour extension is not needed with given poses).
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np

from semslam.engine.fusion import Fusion
from semslam.engine.labels.label_fusion import label_fusion
from semslam.engine.surfels import MapConfig, SurfelMap
from semslam.frame import Frame, Observation
from sequences import open_sequence

CLASSES = 13


clock = time.perf_counter  # or the processor's time, see main


def milliseconds(call: Callable[[], object]) -> float:
    began = clock()
    call()
    return (clock() - began) * 1e3


class Engine:
    """The whole step: filter, merge, append, labels, prediction."""

    def __init__(self, frame: Frame, surfels: SurfelMap | None = None) -> None:
        self.surfels = surfels or SurfelMap(CLASSES, MapConfig(max_surfels=20_000_000))
        self.fusion = Fusion(frame.camera)
        self.labels = label_fusion()
        rng = np.random.default_rng(0)
        scores = rng.random((*frame.camera.shape, CLASSES), np.float32) ** 4
        self.probabilities = scores / scores.sum(axis=2, keepdims=True)

    def step(self, frame: Frame, T: np.ndarray, now: int, label_every: int = 1) -> None:
        observation = self.fusion.prepare(Observation.of(frame))
        self.fusion.fuse(self.surfels, observation, T, now)
        if now % label_every == 0:
            self.labels.fuse(self.surfels, self.fusion.visible, self.fusion.pixels, self.probabilities, T)
        self.fusion.predict(self.surfels, T)


def ours(frames: list[Frame]) -> float:
    """Median of the step with labels in every frame; also prints it with a network's, in every tenth."""
    engine = Engine(frames[0])
    for frame in frames[:12]:  # compile
        engine.step(frame, frame.T_world_camera, frame.index)
    medians = []
    for label_every in (10, 1):
        engine = Engine(frames[0])
        step = partial(engine.step, label_every=label_every)
        times = [milliseconds(partial(step, f, f.T_world_camera, f.index)) for f in frames]
        medians.append(float(np.median(times[5:])))
        print(
            f"semslam, labels every {label_every} frames: {medians[-1]:.1f} ms a frame, p95 "
            f"{np.percentile(times[5:], 95):.1f}; {len(engine.surfels)} surfels, "
            f"{engine.surfels.bytes_per_surfel:.1f} bytes each"
        )
    return medians[-1]


def beside_the_prototype(frames: list[Frame], file: Path, threads: int) -> None:
    """Both steps with labels in every frame, in turn."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module  # its compiled code names it
    spec.loader.exec_module(module)
    both = []
    for _ in range(2):  # the first compiles
        engine, other = Engine(frames[0]), module.Engine(module.State(3_000_000), threads)
        both = []
        for now, frame in enumerate(frames):
            T = frame.T_world_camera
            other.set_frame(module.Frame(frame.depth, frame.color, engine.probabilities, T, frame.camera.K))

            def step(now: int = now, other: Any = other) -> None:
                other.pre()
                other.project()
                other.fuse(now)
                other.append(now)
                other.render()

            both.append((milliseconds(partial(engine.step, frame, T, now)), milliseconds(step)))
    times = np.array(both[5:])
    ratios = times[:, 0] / times[:, 1]
    ours, theirs = np.median(times, axis=0)
    print(f"semslam {ours:.1f} ms, the prototype {theirs:.1f} ms; median of the ratios {np.median(ratios):.2f}")


def open3d_grid(frames: list[Frame], threads: int) -> float:
    import open3d as o3d

    o3d.utility.set_max_threads(threads)
    f32 = o3d.core.float32
    grid = o3d.t.geometry.VoxelBlockGrid(("tsdf", "weight", "color"), (f32, f32, f32), ((1), (1), (3)), 0.01, 16, 40000)
    K = o3d.core.Tensor(frames[0].camera.K)
    times = []
    for frame in frames:
        depth = o3d.t.geometry.Image(o3d.core.Tensor(frame.depth))
        color = o3d.t.geometry.Image(o3d.core.Tensor(frame.color.astype(np.float32) / 255))
        T = o3d.core.Tensor(np.linalg.inv(frame.T_world_camera))

        def integrate(depth=depth, color=color, T=T):
            blocks = grid.compute_unique_block_coordinates(depth, K, T, 1.0, 5.0)
            grid.integrate(blocks, depth, color, K, K, T, 1.0, 5.0)

        times.append(milliseconds(integrate))
    print(f"Open3D VoxelBlockGrid at 10 mm, integration alone: {np.median(times[5:]):.1f} ms a frame")
    return float(np.median(times[5:]))


def gradslam_fusion(frames: list[Frame]) -> float | None:
    unused = types.ModuleType("chamferdist.chamfer")
    unused.knn_points = None  # type: ignore[attr-defined]
    sys.modules.setdefault("chamferdist", types.ModuleType("chamferdist"))
    sys.modules.setdefault("chamferdist.chamfer", unused)
    try:
        import torch
        from gradslam import Pointclouds, RGBDImages
        from gradslam.slam import PointFusion
    except ImportError as error:
        print(f"gradslam: not installed ({error})")
        return None
    torch.set_num_threads(2)
    slam = PointFusion(odom="gt", device=torch.device("cpu"))
    clouds, previous, times = Pointclouds(device=torch.device("cpu")), None, []
    K = torch.eye(4)[None, None].clone()
    K[0, 0, :3, :3] = torch.from_numpy(frames[0].camera.K)
    for frame in frames:
        live = RGBDImages(
            torch.from_numpy(frame.color.astype(np.float32))[None, None],
            torch.from_numpy(frame.depth)[None, None, ..., None],
            K,
            torch.from_numpy(frame.T_world_camera.astype(np.float32))[None, None],
        )
        began = clock()
        with torch.no_grad():
            clouds, _ = slam.step(clouds, live, previous, inplace=True)
        times.append((clock() - began) * 1e3)
        previous = live
    print(f"gradslam PointFusion, no labels: {np.median(times[2:]):.0f} ms a frame")
    return float(np.median(times[2:]))


def copy_bandwidth() -> float:
    """Bytes a second that two threads read and write while copying."""

    @numba.njit(parallel=True)
    def copy(a, b):
        for i in numba.prange(a.size):
            b[i] = a[i]

    a, b = np.ones(32_000_000, np.float32), np.zeros(32_000_000, np.float32)
    copy(a, b)
    return 2 * a.nbytes / (np.median([milliseconds(lambda: copy(a, b)) for _ in range(9)]) / 1e3)


def wall(n: int, frame: Frame) -> SurfelMap:
    """A map of n surfels, all in view on the surface that a frame measures, as dense as it must be."""
    rng = np.random.default_rng(0)
    height, width = frame.camera.shape
    K = frame.camera
    u, v = rng.uniform(0, width - 1, n).astype(np.float32), rng.uniform(0, height - 1, n).astype(np.float32)
    order = np.lexsort((u, np.round(v)))  # row by row, as frames append them
    u, v = u[order], v[order]
    z = frame.depth[np.round(v).astype(int), np.round(u).astype(int)]
    points = np.stack([(u - K.cx) / K.fx * z, (v - K.cy) / K.fy * z, z], axis=1).astype(np.float32)
    position = np.column_stack([points, np.full(n, 0.004)]).astype(np.float32)
    normal = np.tile(np.float32([0, 0, -1, 20]), (n, 1))
    return SurfelMap.from_arrays(
        position,
        normal,
        np.full((n, 4), 30000, np.uint16) * np.uint16([1, 1, 1, 0]),
        np.zeros((n, 2), np.int32),
        CLASSES,
        MapConfig(max_surfels=20_000_000),
    )


def against_the_memory_floor(frame: Frame) -> None:
    """The step on maps of one and three million surfels, all in view, beside the bytes that must move."""
    bandwidth = copy_bandwidth()
    print(f"copy bandwidth {bandwidth / 1e9:.1f} GB/s")
    flat = Frame(0, 0.0, frame.color, frame.camera, np.full(frame.camera.shape, 2.0, np.float32), None, np.eye(4))
    pixels = frame.depth.size
    for n in (300_000, 1_000_000, 3_000_000):
        engine = Engine(flat, wall(n, flat))
        times = []
        for now in range(1, 9):
            times.append(milliseconds(lambda now=now, e=engine: e.step(flat, np.eye(4), now)))
        left = len(engine.surfels)
        # every surfel in view is read and, merged, written: all of its bytes both ways; every pixel brings depth,
        # colour and classes, and takes away an index and the grey of a predicted view
        in_image = pixels * (4 + 3 + 4 * CLASSES + 8 + 4)
        floor, own = ((left * 2 * b + in_image) / bandwidth * 1e3 for b in (100, engine.surfels.bytes_per_surfel))
        print(f"{n / 1e6:.1f} M surfels in view ({left} after the run): {np.median(times):.1f} ms a frame, floor of "
              f"100 bytes a surfel {floor:.1f} ms, {np.median(times) / floor:.2f} times; of its own bytes "
              f"{np.median(times) / own:.2f} times")  # fmt: skip


def through_a_large_map() -> None:
    """The same walk in a room, once alone and once with the room repeated side by side to 10 M surfels."""
    frames = list(open_sequence("room:frames=40"))
    base = Engine(frames[0])
    for k, frame in enumerate(frames):
        base.step(frame, frame.T_world_camera, k)
    alone = base.surfels
    arrays = {name: getattr(alone, name)[alone.slots()] for name in ("position", "normal", "color", "seen")}
    n = len(arrays["position"])
    copies = max(20, -(-10_000_000 // n))
    shift = np.ptp(arrays["position"][:, 0]) + 1.0
    tiled = {name: np.concatenate([a] * copies) for name, a in arrays.items()}
    tiled["position"] = tiled["position"].copy()
    tiled["position"][:, 0] += np.repeat(np.arange(copies), n).astype(np.float32) * np.float32(shift)
    large = SurfelMap.from_arrays(**tiled, num_classes=CLASSES, config=MapConfig(max_surfels=40_000_000))
    small = SurfelMap.from_arrays(**arrays, num_classes=CLASSES)
    engines = {"small": Engine(frames[0], small), "large": Engine(frames[0], large)}
    times: dict[str, list[float]] = {name: [] for name in engines}
    for k, frame in enumerate(frames):
        for name, engine in engines.items():
            times[name].append(milliseconds(lambda e=engine, f=frame, k=k: e.step(f, f.T_world_camera, 40 + k)))
    a, b = (float(np.median(times[name][3:])) for name in engines)
    print(f"{n / 1e6:.2f} M surfels: {a:.1f} ms a frame; {len(large) / 1e6:.1f} M: {b:.1f} ms; {b / a:.2f} times")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=str(Path(__file__).resolve().parents[2] / "shared/data/redkitchen"))
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prototype", type=Path)
    options = parser.parse_args()
    numba.set_num_threads(options.threads)
    if options.threads == 1:
        global clock
        clock = time.process_time
    sequence = open_sequence(options.data)
    frames = [sequence[i] for i in range(min(options.frames, len(sequence)))]
    step = ours(frames)
    if options.prototype:
        beside_the_prototype(frames, options.prototype, options.threads)
    grid = open3d_grid(frames, options.threads)
    print(f"Open3D / semslam: {grid / step:.1f}")
    peer = gradslam_fusion(frames[:8])
    if peer:
        print(f"gradslam / semslam: {peer / step:.0f}")
    against_the_memory_floor(frames[0])
    through_a_large_map()


if __name__ == "__main__":
    main()
