"""The surfaces that maps are held against: of a sequence, of a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from semslam.camera import Camera
from semslam.depth.readout import readout_of
from semslam.depth.synchronised_sequence import synchronised_by
from semslam.frame import evenly_spread
from semslam.geometry.files import read_surface
from semslam.geometry.mesh import LabelledMesh
from semslam.geometry.tsdf_mesh import Reconstruction, ReconstructionConfig
from semslam.metrics import surface
from semslam.metrics.surface import ROOM, Reference
from sequences import Sequence as Recording

TSDF_FRAMES, VIEWS = 100, 40  # frames that are enough for a reference mesh, and for its views
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
    views = [pose_of[i] for i in evenly_spread(posed, VIEWS)]
    camera = sequence.camera
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
    if truth != "depth" and len((mesh := _tsdf_mesh(sequence, posed, limits)).triangles):
        voxel = 100 * ReconstructionConfig.reaching(limits[1]).voxel_size
        name = f"the sensor's depth fused with the data set's poses (Open3D, {voxel:.2g} cm voxels)"
        return surface.mesh_reference(mesh.vertices, mesh.triangles, name, small, views, limits)
    frames = (frame for i in evenly_spread(posed, VIEWS) if (frame := sequence.try_read(i)) is not None)
    seen = (
        (f.camera, f.depth, f.T_world_camera) for f in frames if f.depth is not None and f.T_world_camera is not None
    )
    return surface.depth_reference(seen, "the sequence's depth back-projected with its poses", limits)


def _tsdf_mesh(sequence: Recording, posed: list[int], limits: tuple[float, float]) -> LabelledMesh:
    """The mesh of the sensor's depth at the data set's poses; without triangles where too little of it agrees."""
    near, far = limits
    reconstruction = Reconstruction(ReconstructionConfig.reaching(far))
    for i in evenly_spread(posed, TSDF_FRAMES):
        frame = sequence.try_read(i)
        if frame is None or frame.depth is None or frame.T_world_camera is None:
            continue
        depth = np.where(frame.depth > near, frame.depth, np.float32(0))
        reconstruction.integrate(depth, frame.color, frame.camera, frame.T_world_camera)
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
