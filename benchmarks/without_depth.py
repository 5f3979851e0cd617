"""What colour alone is worth: poses, depth of keyframes and maps against the sensor's, each figure with its protocol.

    python benchmarks/without_depth.py [--data ../shared/data] [--only sfm|focal|depth|poses|maps]

Poses: ATE of all frames after SE(3) alignment (no scale given away) and after Sim(3), and the scale that this gave.
sfm: the same of every fourth frame by structure from motion, where pycolmap is installed. focal: tracked again, with
nothing known of the camera but a start of 45, 60 and 80 degrees.
Depth: every 15th frame with given poses (living room: the data set's; kitchen and cafe: tracked with the sensor's
depth), corrected by the images as in any run, all pixels where the truth is known; the confident half is each
frame's, by the standard deviation in metres that goes with the depth. Also after one scale for all frames (a tracked
path may be short), and less the relative error that the other frames have in the same part of the image, which is
calibration.
Maps: mean distance of the surfels to the points of the sensor's depth (at the data set's poses, at most 1 m counted),
with the data set's poses, corrected by the images, and all by itself after SE(3) or Sim(3) alignment of the
trajectories: of their centres, and, since the centres of a path that is nearly straight leave the rotation about it
open, with the mean rotation of the cameras; of the whole map, and of the insides of planes alone.
"""

from __future__ import annotations

from semslam import poses  # isort: skip  # before NumPy, as the command line does: its BLAS then has one thread

import argparse
import importlib.util
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from semslam import config as configs
from semslam.camera import Camera
from semslam.depth.multiview import MultiViewDepth
from semslam.images.resizing import resized_depth
from semslam.metrics.layering import layering
from semslam.metrics.nearest import Surface
from semslam.metrics.trajectory import Alignment, absolute_error, umeyama
from semslam.perception import predicted
from semslam.runs import networks
from semslam.runs.color_only.fitted import fit_to_images
from semslam.runs.color_only.poses import track_images
from semslam.runs.color_only.sfm import sfm_poses
from semslam.runs.config import RunConfig
from semslam.runs.finished.finish import finish
from semslam.runs.reconstruct import prepare
from semslam.tracking.visual.config import VisualConfig
from semslam.trajectory import Trajectory
from sequences import open_sequence
from sequences.recalibrated import RecalibratedSequence
from sequences.selected import selected

KITCHEN, LIVING, DESK, CAFE = "redkitchen", "icl_livingroom1", "tum_fr1_desk_rgb", "nyuv2_cafe"


def run_of(sequence: Path, network: object, place: str, **settings: str):
    """A finished run of `semslam reconstruct --depth predicted` without its mesh, in a new folder below `place`."""
    changes = {"sequence": str(sequence), "slam.perception.depth": "predicted", "slam.perception.labels": "none"}
    out = Path(tempfile.mkdtemp(dir=place)) / "run"
    run = prepare(configs.updated(RunConfig(), changes | settings, "benchmark"), out, network=network)
    for _ in run:
        pass
    return run, finish(run, mesh=False)


class Judged(NamedTuple):
    """Depth of a frame and the sensor's, (240, 320) metres, 0 = none."""

    depth: np.ndarray
    log_std: np.ndarray
    truth: np.ndarray

    @property
    def surer_half(self) -> np.ndarray:
        """(240, 320) bool, of the pixels whose truth is known."""
        valid, std = self.truth > 0, self.log_std * self.depth  # metres, as the errors are
        return valid & (std <= np.median(std[valid]))

    @property
    def log_ratio(self) -> np.ndarray:
        """(240, 320), NaN outside of the surer half."""
        return np.where(self.surer_half, np.log(self.depth / np.where(self.truth > 0, self.truth, 1)), np.nan)

    def errors(self) -> tuple[float, float, float, float]:
        """Mean error of all pixels, of the surer half, m; share within 10 %; that half's in standard deviations."""
        valid, sure, error = self.truth > 0, self.surer_half, np.abs(self.depth - self.truth)
        z = np.abs(self.log_ratio[sure]) / self.log_std[sure]
        return error[valid].mean(), error[sure].mean(), (error < 0.1 * self.truth)[valid].mean(), 1.48 * np.median(z)


def judged_frames(sequence, T_world_camera, network) -> list[Judged]:
    """Depth of every 15th frame, brought together with that of the keyframes before and after, as in a run."""

    def look_at(index: int) -> tuple[np.ndarray, np.ndarray]:
        color, recorded = sequence.color_of(index), sequence.recorded_image(index)
        return color, predicted(network, color, size, sequence.camera.fx, recorded, mirror_too=True).depth

    views, found = MultiViewDepth(sequence.camera, T_world_camera, sequence.color_of, look_at=look_at), []
    size = views.camera.width, views.camera.height
    for k in range(len(sequence)):
        judged, keyframe = k in range(20, len(sequence) - 15, 15), views.has_moved(k)
        if T_world_camera[k] is None or not (judged or keyframe):
            continue
        here = views.measured(k, *look_at(k))
        if here is None:
            continue
        if judged:
            together = views.agreed(k, here)
            truth = resized_depth(sequence.depth_of(k), size)
            found.append(Judged(together.depth, together.log_std, truth))
        if keyframe:
            views.advance(k, here)
    return found


def in_one_scale(frames: list[Judged]) -> list[Judged]:
    """All depths times one factor, with which the surer halves fit the sensor's (median)."""
    level = np.nanmedian(np.stack([frame.log_ratio for frame in frames]))
    return [frame._replace(depth=frame.depth * np.exp(-level)) for frame in frames]


def less_what_is_fixed(frames: list[Judged]) -> list[Judged]:
    """Each frame's depth without the relative error that all the others have in the same part of the image.

    What is fixed to the image is calibration, of the sensor's depth, its registration or the lens; parts of 40 pixels.
    """
    ratios, found = np.stack([frame.log_ratio for frame in frames]), []
    for k, frame in enumerate(frames):
        others = np.delete(ratios, k, axis=0).reshape(-1, 6, 40, 8, 40).transpose(1, 3, 0, 2, 4).reshape(6, 8, -1)
        pattern = np.array([[np.nanmedian(x) if np.isfinite(x).sum() > 200 else np.nan for x in row] for row in others])
        pattern = np.where(np.isfinite(pattern), pattern, np.nanmedian(pattern)).astype(np.float32)
        found.append(frame._replace(depth=frame.depth * np.exp(-cv2.resize(pattern, (320, 240)))))
    return found


def sensor_points(sequence, T_world_camera) -> np.ndarray:
    """(N, 3) points of the sensor's depth of every sixth frame, world, metres."""
    found = []
    for i in range(0, len(sequence), 6):
        frame = sequence[i]
        if T_world_camera[i] is not None:
            points = sequence.camera.backproject(frame.depth)[::6, ::6].reshape(-1, 3)
            found.append(poses.transform(T_world_camera[i], points[points[:, 2] > 0]))
    return np.concatenate(found)


def surface_error(positions: np.ndarray, reference: Surface) -> float:
    """Mean distance in metres to the nearest reference point, counted to 1 m."""
    return float(np.minimum(reference.distance(positions), 1.0).mean())


def aligned_errors(sequence, found) -> str:
    """The trajectory errors of `VisualPoses`, in words."""
    estimate = Trajectory(sequence.timestamps[found.found], found.T_world_camera[found.found])
    rigid, similar = (absolute_error(estimate, sequence.trajectory, with_scale=w) for w in (False, True))
    return (
        f"ATE SE(3) {100 * rigid.rmse:.2f} cm, Sim(3) {100 * similar.rmse:.2f} cm; scale truth / ours "
        f"{similar.alignment.scale:.3f}; {found.found.sum()} of {len(found.good)} frames"
    )


def structure_from_motion(data: Path, network) -> None:
    """Poses by COLMAP."""
    if importlib.util.find_spec("pycolmap") is None:
        print("structure from motion is left out: pip install pycolmap")
        return
    for name in (KITCHEN, LIVING, DESK):
        sequence = open_sequence(data / name)
        found = sfm_poses(sequence, network)
        print(f"{name:<18} structure from motion, {found.seconds:.0f} s: {aligned_errors(sequence, found)}", flush=True)


def unknown_cameras(data: Path, network) -> None:
    """Focal lengths that were not known."""
    for name in (KITCHEN, LIVING, DESK):
        sequence = selected(open_sequence(data / name), 0, 211)
        true = sequence.camera
        for fov in (45.0, 60.0, 80.0):
            guess = replace(Camera.of_fov(true.width, true.height, fov), focal_known=False)
            found = track_images(RecalibratedSequence(sequence, guess), network)
            print(
                f"{name:<18} unknown camera, from {fov:.0f} degrees: focal length {found.focal:.0f} pixels, "
                f"{100 * (found.focal / true.fx - 1):+.1f} % (said +- {100 * found.focal_std:.0f} %); "
                f"{aligned_errors(sequence, found)}",
                flush=True,
            )


def keyframes(data: Path, network) -> None:
    """Depth of single frames, with poses that are given."""
    for name in (KITCHEN, LIVING, CAFE):
        sequence = open_sequence(data / name)
        given = sequence.poses
        if name != LIVING:
            changes = {"sequence": str(data / name), "poses": "tracked", "slam.perception.labels": "none"}
            changed = configs.updated(RunConfig(), changes, "benchmark")
            with tempfile.TemporaryDirectory() as out:
                tracked = prepare(changed, Path(out) / "run")
                for _ in tracked:
                    pass
                given = [tracked.progress.trajectory().at(float(t)) for t in sequence.timestamps]
        fitted = fit_to_images(sequence, given, network, VisualConfig())
        frames = judged_frames(fitted.calibrated(sequence), fitted.listed(), network)
        mean, scaled, less = (
            np.mean([frame.errors() for frame in some], axis=0)
            for some in (frames, in_one_scale(frames), less_what_is_fixed(frames))
        )
        kept = f"corrected to {fitted.misfit:.1f}" if fitted.corrected else "kept"
        print(
            f"{name:<18} depth of keyframes, given poses ({fitted.misfit_given:.1f} pixels off, {kept}): mean error "
            f"{100 * mean[0]:.1f} cm, of the surer half {100 * mean[1]:.1f} cm; within 10 % {100 * mean[2]:.0f} % of "
            f"all pixels; errors of that half {mean[3]:.1f} of the standard deviations told; with one scale for all "
            f"frames {100 * scaled[0]:.1f}, {100 * scaled[1]:.1f} cm; without what the other frames have in the same "
            f"part of the image {100 * less[0]:.1f}, {100 * less[1]:.1f} cm, {less[3]:.1f} standard deviations",
            flush=True,
        )


def alone(folder: Path, network, place: str):
    """The run of a recording all by itself; its trajectory's errors are printed."""
    run, metrics = run_of(folder, network, place, poses="tracked")
    trajectory = run.progress.trajectory()
    errors = {w: absolute_error(trajectory, run.sequence.trajectory, with_scale=w) for w in (False, True)}
    print(
        f"{folder.name:<18} ATE SE(3) {100 * errors[False].rmse:.2f} cm, Sim(3) {100 * errors[True].rmse:.2f} cm; "
        f"scale truth / ours {errors[True].alignment.scale:.3f} (said +- {100 * metrics['scale_std']:.0f} %); "
        f"{len(trajectory.timestamps)} of {len(run.sequence)} frames, "
        f"{metrics['frames_per_second']:.1f} frames/s, whole run",
        flush=True,
    )
    return run


def maps(folder: Path, network, by_itself, place: str) -> None:
    """Maps with the data set's poses, and all by itself, against the sensor's points."""
    sequence = open_sequence(folder)
    truth = [None if T is None else np.asarray(T) for T in sequence.poses]
    points = sensor_points(sequence, truth)
    reference = Surface(points)
    run, metrics = run_of(folder, network, place, poses="dataset")
    given, T_run = run.progress.trajectory(), by_itself.progress.trajectory()
    times = {float(t): i for i, t in enumerate(sequence.timestamps)}
    T_true = np.array([truth[times[float(t)]] for t in T_run.timestamps])
    to_given = {w: absolute_error(T_run, given, with_scale=w).rmse for w in (False, True)}
    kept = "corrected" if metrics["poses_corrected"] else "kept"
    print(
        f"{folder.name:<18} layered, given poses {100 * layering(run.cloud()):.0f} %, all by itself "
        f"{100 * layering(by_itself.cloud()):.0f} %; given poses {kept}; from these, the path all by itself is "
        f"{100 * to_given[False]:.1f} cm in metres, {100 * to_given[True]:.1f} cm after Sim(3)"
    )
    alignments = {
        "given poses": (run, Alignment(np.eye(3), np.zeros(3))),
        "all by itself, in metres": (by_itself, umeyama(T_run.positions, T_true[:, :3, 3], False)),
        "... Sim(3)": (by_itself, umeyama(T_run.positions, T_true[:, :3, 3], True)),
        "all by itself, in metres, cameras turned alike": (
            by_itself,
            turned_alike(T_run.T_world_camera, T_true, with_scale=False),
        ),
        "... Sim(3), cameras turned alike": (by_itself, turned_alike(T_run.T_world_camera, T_true, with_scale=True)),
    }
    for what, (of, alignment) in alignments.items():
        whole, without = of.cloud().positions, of.slam.cloud().positions
        added = np.zeros((0, 3)) if of.filled is None else of.filled.positions
        all_, map_, planes = (100 * surface_error(alignment(x), reference) for x in (whole, without, added))
        reached = [100 * (Surface(alignment(x)).distance(points[::5]) < 0.1).mean() for x in (without, whole)]
        print(
            f"{folder.name:<18} map to the sensor's points, {what}: {all_:.1f} cm; without the insides of planes "
            f"{map_:.1f}, these {planes:.1f} cm ({len(added)} surfels); of the sensor's points {reached[0]:.1f} -> "
            f"{reached[1]:.1f} % within 10 cm",
            flush=True,
        )


def turned_alike(T_run: np.ndarray, T_true: np.ndarray, with_scale: bool) -> Alignment:
    """The alignment of two paths (N, 4, 4) whose rotation is the mean of the cameras'.

    Where all centres lie nearly on a line, they leave the rotation about it open, and orientations do not.
    """
    turned = Rotation.from_matrix(T_true[:, :3, :3] @ T_run[:, :3, :3].transpose(0, 2, 1)).mean().as_matrix()
    mean_run, mean_true = T_run[:, :3, 3].mean(axis=0), T_true[:, :3, 3].mean(axis=0)
    run, true = (T_run[:, :3, 3] - mean_run) @ turned.T, T_true[:, :3, 3] - mean_true
    scale = float((run * true).sum() / (run * run).sum()) if with_scale else 1.0
    return Alignment(turned, mean_true - scale * turned @ mean_run, scale)


TABLES = {"sfm": structure_from_motion, "focal": unknown_cameras, "depth": keyframes}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", choices=(*TABLES, "poses", "maps"))
    arguments = parser.parse_args()
    network = networks.predictor("nyu13", None, None, (480, 640))
    for name, table in TABLES.items():
        if arguments.only in (None, name):
            table(arguments.data, network)
    if arguments.only in TABLES:
        return
    with tempfile.TemporaryDirectory() as place:
        by_itself = {name: alone(arguments.data / name, network, place) for name in (KITCHEN, LIVING, DESK)}
        if arguments.only != "poses":
            for name in (KITCHEN, LIVING):
                maps(arguments.data / name, network, by_itself[name], place)


if __name__ == "__main__":
    cv2.setNumThreads(2)
    main()
