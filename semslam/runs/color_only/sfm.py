"""Poses of a recording by structure from motion: afterwards, with time, by COLMAP (pycolmap, an extra).

Schonberger and Frahm, "Structure-from-Motion Revisited", CVPR 2016. Some of the frames are posed, the others are left
out; the network's depth gives the scale, as in visual tracking.
"""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from semslam import images, poses
from semslam.camera import Camera
from semslam.files.failures import raise_passing
from semslam.frame import evenly_spread
from semslam.perception import Network
from semslam.runs.color_only.following import tracked_camera
from semslam.runs.color_only.likeness import Likeness, scale_std, share_strange
from semslam.runs.color_only.poses import VisualPoses, check_parallax
from semslam.runs.progress import NoMap
from semslam.tracking.visual.sparse_map import FOCAL_FLOOR
from semslam.tracking.visual.votes import vote_of, voted_scale
from sequences import Sequence as Recording

logger = logging.getLogger(__name__)
EVERY, MOST = 4, 400  # frames from one that is posed to the next; frames that are posed
FAR_APART = 0.5  # seconds from one to the next with which images of a walk may show too little in common
VOTERS = 30  # images whose depth the network predicts, for the scale
SAFE = 10  # points of an image that are enough for a vote


def sfm_poses(sequence: Recording, network: Network, report: Callable[[], object] = lambda: None) -> VisualPoses:
    """Poses of every fourth frame of a `sequences.Sequence`, or of fewer of a long one.

    report: called for each frame, when its image is taken. ValueError without pycolmap, NoMap where too few images fit
    together or the camera did not move sideways, OSError as of `follow_images`.
    """
    try:
        import pycolmap
    except ImportError:
        raise ValueError("`poses` is sfm, which needs pycolmap: pip install pycolmap; or use tracked") from None
    began = time.perf_counter()
    camera = tracked_camera(sequence.camera)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_images(sequence, camera, folder / "images", report)
        model = _reconstructed(pycolmap, folder, camera)
    if model is None:
        raise NoMap(f"{sequence.name}: no two images fit together; film slowly, in good light, with texture in view")
    known = next(iter(model.cameras.values()))
    camera = camera if camera.focal_known else camera.with_focal(float(known.focal_length_x))
    T_camera_world = {int(Path(image.name).stem): _pose(image) for image in model.images.values() if image.has_pose}
    votes = _votes(model, sequence, camera, network)
    scale, std = voted_scale(votes.levels, votes.weights)
    first = min(T_camera_world)
    recorded = None if sequence.poses is None else sequence.poses[first]
    T = np.full((len(sequence), 4, 4), np.nan)
    for index, T_index in T_camera_world.items():
        T_first_index = T_camera_world[first] @ poses.inverse(T_index)
        T_first_index[:3, 3] *= scale
        T[index] = T_first_index if recorded is None else recorded @ T_first_index
    found = VisualPoses(
        T_world_camera=T,
        good=np.isfinite(T[:, 0, 0]),
        scale=scale,
        scale_std=scale_std(std, votes.strange),
        keyframes=len(T_camera_world),
        depth=scale * votes.depth,
        seconds=time.perf_counter() - began,
        focal=camera.fx * sequence.camera.width / camera.width,
        focal_std=0.0 if sequence.camera.focal_known else FOCAL_FLOOR,
        strange=votes.strange,
        residual=math.nan,
    )
    check_parallax(sequence.name, found)
    return found


def step_of(sequence: Recording) -> int:
    """Frames from one of a recording that is posed to the next; a warning where they are too far apart for a walk."""
    step = max(EVERY, math.ceil(len(sequence) / MOST))
    seconds = np.diff(sequence.timestamps[::step])
    if step > EVERY and len(seconds) and np.median(seconds) > FAR_APART:
        logger.warning(
            "%s: at most %d images are posed, here one every %.1f seconds, which may have too little in common; give a "
            "shorter piece (`start`, `frames`), or track the poses",
            *(sequence.name, MOST, np.median(seconds)),
        )
    return step


def _write_images(sequence: Recording, camera: Camera, folder: Path, report: Callable[[], object]) -> None:
    folder.mkdir()
    step = step_of(sequence)
    for index in range(0, len(sequence), step):
        for _ in range(index, min(index + step, len(sequence))):
            report()
        try:
            color = sequence.color_of(index)
        except (ValueError, OSError) as problem:
            raise_passing(problem)
            continue  # counted by the run
        small = cv2.resize(color, (camera.width, camera.height), interpolation=cv2.INTER_AREA)
        images.write_png(folder / f"{index:06d}.png", small)


def _reconstructed(pycolmap: Any, folder: Path, camera: Camera) -> Any:
    """The largest pycolmap.Reconstruction of a folder's images; None where there is none."""
    level, pycolmap.logging.minloglevel = pycolmap.logging.minloglevel, 3
    try:
        reader = pycolmap.ImageReaderOptions()
        reader.camera_model = "PINHOLE" if camera.focal_known else "SIMPLE_PINHOLE"
        focal = (camera.fx, camera.fy) if camera.focal_known else (camera.fx,)
        # COLMAP's pixels have their centres at halves
        reader.camera_params = ",".join(str(x) for x in (*focal, camera.cx + 0.5, camera.cy + 0.5))
        database, pictures = folder / "database.db", folder / "images"
        single = pycolmap.CameraMode.SINGLE
        pycolmap.extract_features(database, pictures, camera_mode=single, reader_options=reader)
        pycolmap.match_sequential(database)
        options = pycolmap.IncrementalPipelineOptions()
        options.ba_refine_focal_length = not camera.focal_known
        options.ba_refine_extra_params = options.ba_refine_principal_point = False
        options.random_seed = 0
        models = pycolmap.incremental_mapping(database, pictures, folder, options)
    finally:
        pycolmap.logging.minloglevel = level
    return max(models.values(), key=lambda model: model.num_reg_images(), default=None)


def _pose(image: Any) -> np.ndarray:
    """T_camera_world (4, 4) of a pycolmap.Image."""
    T = np.eye(4)
    T[:3] = image.cam_from_world().matrix()
    return T


class Votes(NamedTuple):
    """What a network's depth says of a model's scale, in N images."""

    levels: np.ndarray  # (N,) logarithms of the model's depth over the network's
    weights: np.ndarray  # (N,) as in visual tracking
    depth: float  # median of the model's points, in its unit
    strange: float  # share of the images that are unlike those of the network's training


def _votes(model: Any, sequence: Recording, camera: Camera, network: Network) -> Votes:
    """The votes of some of the posed images of a `sequences.Sequence`, spread evenly."""
    votes, depths, looks = [], [], []
    posed = sorted((image for image in model.images.values() if image.has_pose), key=lambda image: image.name)
    for image in evenly_spread(posed, VOTERS):
        seen = [p for p in image.points2D if p.has_point3D()]
        if len(seen) < SAFE:
            continue
        color = sequence.color_of(int(Path(image.name).stem))
        focal = camera.fx * sequence.camera.width / camera.width
        predicted = network(color, (camera.width, camera.height), focal)
        points = np.stack([model.points3D[p.point3D_id].xyz for p in seen])
        z = poses.transform(_pose(image), points)[:, 2]
        pixels = np.stack([p.xy for p in seen]) - 0.5
        u, v = np.clip(np.rint(pixels).astype(int), 0, [camera.width - 1, camera.height - 1]).T
        ahead = z > 0
        looks.append(Likeness.of(color))
        levels = np.log(z[ahead] / predicted.depth[v, u][ahead])
        votes.append(vote_of(levels, predicted.depth_confidence[v, u][ahead]))
        depths.append(float(np.median(z[ahead])))
    levels, weights = np.array(votes).reshape(-1, 2).T
    return Votes(levels, weights, float(np.median(depths)) if depths else 1.0, share_strange(looks))
