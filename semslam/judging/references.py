"""The surfaces that maps are held against: of a sequence, of a file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from semslam.camera import Camera
from semslam.depth.readout import readout_of
from semslam.depth.synchronised_sequence import synchronised_by
from semslam.frame import evenly_spread
from semslam.geometry.files import read_surface
from semslam.geometry.mesh import LabelledMesh
from semslam.geometry.tsdf_mesh import Reconstruction, ReconstructionConfig, depth_seen, frames_enough
from semslam.metrics import surface
from semslam.metrics.surface import ROOM, Reference
from sequences import Sequence as Recording

logger = logging.getLogger(__name__)
# frames, at least and at most, that a reference mesh is made of, and its views; a frame takes some 60 ms, a view 20
TSDF_FRAMES, VIEWS = (100, 1000), (40, 400)
APART = 0.5  # of what a camera sees: by so much views differ
SAMPLED = 8  # frames that tell how far the camera sees
VIEW_WIDTH = 320  # pixels


def scene_reference(
    sequence: Recording, truth: str = "auto", limits: tuple[float, float] = ROOM, world_origin: np.ndarray | None = None
) -> Reference:
    """The surface that a sequence's maps are held against; ValueError where there is none.

    truth: "mesh", that of a synthetic sequence; "depth", back-projected with the data set's poses, where it is
    noise-free; "tsdf", the mesh that Open3D makes of it; "auto": mesh where there is one, else tsdf; or a file.
    limits: metres; the nearest and the farthest depth that counts, those that the map keeps. world_origin: (3,) metres,
    to which the map is relative, where the sequence has no poses of its own that say it.
    """
    origin = sequence.world_origin if sequence.has_poses or world_origin is None else world_origin
    pose_of = {i: T for i, T in enumerate(sequence.poses or ()) if T is not None}
    posed = list(pose_of)
    camera = sequence.camera
    depth = _depth_seen(sequence, posed) if len(posed) > min(TSDF_FRAMES[0], VIEWS[0]) else np.inf
    enough = frames_enough(list(pose_of.values()), camera, depth, *VIEWS, moved=APART)
    views = [pose_of[posed[k]] for k in enough]
    small = camera.of_width(min(VIEW_WIDTH, camera.width))
    if truth in ("auto", "mesh") and (own := sequence.mesh()) is not None:
        return surface.mesh_reference(own.vertices, own.triangles, "the scene's own mesh", small, views, limits)
    if truth == "mesh":
        raise ValueError(f"{sequence.name} has no mesh of its own; name a file, or depth or tsdf")
    if truth not in ("auto", "depth", "tsdf"):
        return file_reference(Path(truth), small if views else None, views, limits, origin)
    if not posed or not sequence.has_depth:
        raise ValueError(f"{sequence.name} has no depth with poses to make a reference of; name a mesh or a cloud")
    sequence = synchronised_by(sequence, sequence.poses or (), readout_of(sequence))
    if truth != "depth":
        mesh = _tsdf_mesh(sequence, pose_of, depth, limits)
        if len(mesh.triangles):
            voxel = 100 * ReconstructionConfig.reaching(limits[1]).voxel_size
            name = f"the sensor's depth fused with the data set's poses (Open3D, {voxel:.2g} cm voxels)"
            return surface.mesh_reference(mesh.vertices, mesh.triangles, name, small, views, limits)
        said = f"{sequence.name}: its depth and poses make no mesh between {limits[0]:g} and {limits[1]:g} m"
        if truth == "tsdf":
            raise ValueError(f"{said}; name a file, or depth where it is free of noise")
        logger.warning("%s; maps are compared with the depth itself, noise and all", said)
    frames = (frame for k in enough if (frame := sequence.try_read(posed[k])) is not None)
    seen = (
        (f.camera, f.depth, f.T_world_camera) for f in frames if f.depth is not None and f.T_world_camera is not None
    )
    return surface.depth_reference(seen, "the sequence's depth back-projected with its poses", limits)


def _depth_seen(sequence: Recording, posed: list[int]) -> float:
    """Metres to what the camera sees, in the median; infinite where the recording has no depth that tells."""
    if not sequence.has_depth:
        return np.inf
    frames = (sequence.try_read(i) for i in evenly_spread(posed, SAMPLED))
    return depth_seen(frame.depth for frame in frames if frame is not None)


def _tsdf_mesh(
    sequence: Recording, pose_of: dict[int, np.ndarray], depth: float, limits: tuple[float, float]
) -> LabelledMesh:
    """The mesh of the sensor's depth at the data set's poses, of enough frames where they see so deep (metres); without
    triangles where too little of it agrees."""
    near, far = limits
    reconstruction = Reconstruction(ReconstructionConfig.reaching(far))
    posed, T_world_camera = list(pose_of), list(pose_of.values())
    enough = frames_enough(T_world_camera, sequence.camera, depth, *TSDF_FRAMES)
    if len(enough) > 0.9 * TSDF_FRAMES[1] and len(posed) > len(enough):
        logger.warning("%s: the reference is made of %d of its %d frames", sequence.name, len(enough), len(posed))
    for i in (posed[k] for k in enough):
        frame = sequence.try_read(i)
        if frame is None or frame.depth is None or frame.T_world_camera is None:
            continue
        beyond = np.where(frame.depth > near, frame.depth, np.float32(0))
        reconstruction.integrate(beyond, frame.color, frame.camera, frame.T_world_camera)
    return reconstruction.mesh()


def file_reference(
    path: Path,
    camera: Camera | None = None,
    T_world_camera: Sequence[np.ndarray] = (),
    limits: tuple[float, float] = ROOM,
    world_origin: np.ndarray | None = None,
) -> Reference:
    """A reference from a mesh or cloud file; for a mesh, the views decide what counts.

    world_origin: (3,) metres, to which the views, and so the reference, are relative.
    """
    points, triangles = read_surface(path)
    if world_origin is not None and world_origin.any():
        points = (points - world_origin).astype(np.float32)
    if len(triangles):
        return surface.mesh_reference(points, triangles, str(path), camera, T_world_camera, limits)
    return surface.points_reference(points, str(path))
