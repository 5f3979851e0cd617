"""A labelled triangle mesh from the same frames and poses as the surfels.

Depth is averaged in a sparse grid of signed distances (Curless and Levoy, 1996; Open3D's tensor VoxelBlockGrid),
the mesh is its zero level, and each vertex takes the classes of the surfels around it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.cloud import CloudInParts, SurfelCloud
from semslam.config import NotNegative, Positive, check_ranges
from semslam.frame import UNLABELLED, Observation, evenly_spread
from semslam.geometry.mesh import LabelledMesh
from semslam.rendering.splatting import observed

BLOCK = 8  # voxels along a block's side; 16, Open3D's default, took 2.3 times the memory on a kitchen at 1 cm
VIEWS = 150  # of a map, at most, that a mesh is made of where its frames are not at hand
CELL_BYTES = 80_000  # of a growing grid and its mesh for each cube of a block's size that the surface passes through
LABELLING_BYTES = 200  # a surfel, by which a mesh is labelled
FIRST_BLOCKS = 4096  # where the grid starts; it grows by itself
# Of the measurements that the median voxel has, what one must have to be surface: of few and far between frames less
# than usual, or a quarter of what a short recording shows has no mesh. Flying pixels are one measurement of many.
SEEN = 1 / 8
MOVED = 0.1  # of what a camera sees: a view that has changed by that much is worth a frame


@dataclass(frozen=True)
class ReconstructionConfig:
    """How finely the mesh is made."""

    voxel_size: Positive = 0.01  # metres
    truncation: Positive = 5.0  # voxels; surfaces thinner than this times the voxel size lose their backs
    max_depth: Positive = 5.0  # metres; farther measurements are left out
    min_weight: NotNegative = 2.0  # measurements; more than these make a surface; fewer where most voxels have few
    label_radius: Positive = 0.03  # metres from a vertex to the surfels that name its class

    def __post_init__(self) -> None:
        check_ranges(self, "")

    @staticmethod
    def reaching(max_depth: float) -> ReconstructionConfig:
        """The usual settings, with voxels that grow where depth reaches farther, as its noise and the map do."""
        usual = ReconstructionConfig()
        growth = max(1.0, max_depth / usual.max_depth)
        return replace(
            usual,
            max_depth=max_depth,
            voxel_size=usual.voxel_size * growth,
            label_radius=usual.label_radius * growth,
        )

    def within(self, memory: float, clouds: CloudInParts) -> ReconstructionConfig:
        """These settings with voxels so large that the mesh of a map takes about so many bytes of memory, at most."""
        cells = np.empty(0, np.int64)
        for part in clouds:
            found = np.floor(part.positions / (BLOCK * self.voxel_size)).astype(np.int64) & 0x1FFFFF
            cells = np.union1d(cells, (found[:, 0] << 42) | (found[:, 1] << 21) | found[:, 2])
        growth = max(1.0, float(np.sqrt(len(cells) * CELL_BYTES / memory)))  # the cells of a surface are an area
        return replace(
            self, voxel_size=self.voxel_size * growth, label_radius=max(self.label_radius, 2 * self.voxel_size * growth)
        )


class Reconstruction:
    """The grid of signed distances: frames in, mesh out, at any time."""

    def __init__(self, config: ReconstructionConfig | None = None) -> None:
        import open3d as o3d

        self.config = config or ReconstructionConfig()
        single = o3d.core.float32
        self._grid: Any = o3d.t.geometry.VoxelBlockGrid(
            ("tsdf", "weight", "color"),
            (single, single, single),
            ((1), (1), (3)),
            self.config.voxel_size,
            BLOCK,
            FIRST_BLOCKS,
            o3d.core.Device("CPU:0"),
        )

    @property
    def blocks(self) -> int:
        """How many blocks of BLOCK**3 voxels (10 kB each) the surface has touched."""
        return int(self._grid.hashmap().size())

    def integrate(self, depth: np.ndarray, color: np.ndarray, camera: Camera, T_world_camera: np.ndarray) -> None:
        """Average one frame into the grid: depth (H, W) metres, 0 = none; color (H, W, 3) uint8; undistorted."""
        import open3d as o3d

        if depth.shape != camera.shape or color.shape != (*camera.shape, 3):
            raise ValueError(
                f"depth is {depth.shape}, color {color.shape}, the camera {camera.shape}; resize them to one size first"
            )
        config = self.config
        if not np.any((depth > 0) & (depth < config.max_depth)):
            return  # nothing to add, and Open3D raises where no block is touched
        tensor = o3d.core.Tensor
        depth_image = o3d.t.geometry.Image(tensor(np.ascontiguousarray(depth, np.float32)))
        color_image = o3d.t.geometry.Image(tensor(np.ascontiguousarray(color, np.float32) / np.float32(255)))
        K, extrinsic = tensor(camera.K), tensor(poses.inverse(np.asarray(T_world_camera, np.float64)))
        to_read = tensor(camera.K + [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])  # Open3D cuts pixels off, ours are centres
        metres = 1.0  # what one unit of depth is
        blocks = self._grid.compute_unique_block_coordinates(
            depth_image, K, extrinsic, metres, config.max_depth, config.truncation
        )
        self._grid.integrate(
            blocks, depth_image, color_image, to_read, extrinsic, metres, config.max_depth, config.truncation
        )

    def _enough(self) -> float:
        """The measurements that a voxel needs more of: as set, or fewer where most voxels have few themselves."""
        weights = self._grid.attribute("weight").numpy()[self._grid.hashmap().active_buf_indices().numpy()]
        seen = weights[weights > 0]
        usual = float(np.median(seen)) if len(seen) else 0.0
        return min(self.config.min_weight, max(0.5, SEEN * usual))

    def mesh(self) -> LabelledMesh:
        """The surface so far, without labels; the same vertices in the same order every time."""
        if self.blocks == 0:
            return _empty_mesh()
        mesh = self._grid.extract_triangle_mesh(weight_threshold=self._enough())
        if "indices" not in mesh.triangle or len(mesh.vertex.positions) == 0:
            return _empty_mesh()
        vertices = mesh.vertex.positions.numpy()
        # threads hand out vertex numbers as they come; sorted, the file does not depend on who was first
        order = np.lexsort(vertices.T)
        rank = np.empty(len(order), np.int32)
        rank[order] = np.arange(len(order), dtype=np.int32)
        triangles = rank[mesh.triangle.indices.numpy()]
        first = triangles.argmin(axis=1)[:, None]
        triangles = np.take_along_axis(triangles, (first + np.arange(3)) % 3, axis=1)
        triangles = triangles[np.lexsort(triangles.T[::-1])]
        normals = mesh.vertex.normals.numpy()[order]
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        colors = np.clip(mesh.vertex.colors.numpy()[order] * 255 + 0.5, 0, 255).astype(np.uint8)
        labels = np.full(len(order), UNLABELLED, np.uint8)
        return LabelledMesh(vertices[order], triangles, normals, colors, labels)


def frames_enough(
    T_world_camera: Sequence[np.ndarray], camera: Camera, depth: float, least: int, most: int, moved: float = MOVED
) -> list[int]:
    """The numbers of the poses (4, 4) of a path that show all that it passes: at least and at most so many, and one
    where the view has changed by `moved` of itself, by the way over the depth of what is seen (metres) and the turn
    over the field of view."""
    if len(T_world_camera) <= least:
        return list(range(len(T_world_camera)))
    T = np.asarray(T_world_camera, np.float64)
    way = np.linalg.norm(np.diff(T[:, :3, 3], axis=0), axis=1)
    turn = np.arccos(np.clip((np.einsum("nij,nij->n", T[1:, :3, :3], T[:-1, :3, :3]) - 1) / 2, -1, 1))
    field_of_view = 2 * np.arctan(0.5 * min(camera.width / camera.fx, camera.height / camera.fy))
    changed = np.minimum((way / depth + turn / field_of_view) / moved, 1)  # after a jump a view is worth no more
    steps = np.maximum(changed, (least - 1) / (len(T) - 1))
    along = np.concatenate([[0.0], np.cumsum(steps)])
    count = min(int(np.ceil(along[-1] - 1e-6)) + 1, most)
    return np.unique(np.searchsorted((along[1:] + along[:-1]) / 2, np.linspace(0, along[-1], count))).tolist()


def depth_seen(depths: Iterable[np.ndarray | None]) -> float:
    """Metres, the median of some depth images (H, W); infinite where they are empty: only turns change such views."""
    medians = [np.median(depth[depth > 0]) for depth in depths if depth is not None and (depth > 0).any()]
    return float(np.median(medians)) if medians else np.inf


def _empty_mesh() -> LabelledMesh:
    return LabelledMesh(
        np.zeros((0, 3), np.float32),
        np.zeros((0, 3), np.int32),
        np.zeros((0, 3), np.float32),
        np.zeros((0, 3), np.uint8),
        np.zeros(0, np.uint8),
    )


def labelled(mesh: LabelledMesh, cloud: SurfelCloud, radius: float) -> LabelledMesh:
    """The mesh with each vertex's most probable class among the four nearest surfels within `radius` metres.

    Surfels that face the other way belong to the other side of a thin surface and do not vote. Where most of the
    neighbours were never labelled, neither is the vertex.
    """
    from scipy.spatial import cKDTree

    labels = np.full(len(mesh.vertices), UNLABELLED, np.uint8)
    probabilities = cloud.class_probabilities
    if probabilities is None or len(cloud) == 0 or len(labels) == 0:
        return replace(mesh, labels=labels, world_origin=cloud.world_origin)
    tree = cKDTree(cloud.positions)
    neighbours = min(4, len(cloud))
    for start in range(0, len(labels), 200_000):  # a bounded table of votes, whatever the mesh
        part = slice(start, start + 200_000)
        distance, index = tree.query(
            mesh.vertices[part], k=list(range(1, neighbours + 1)), distance_upper_bound=radius, workers=-1
        )
        found = np.isfinite(distance)
        index = np.where(found, index, 0)
        facing = np.einsum("vkc,vc->vk", cloud.normals[index], mesh.normals[part]) > 0
        voters = found & facing
        votes = np.einsum("vkc,vk->vc", probabilities[index], voters.astype(np.float32))
        known = votes.sum(axis=1) > 0.5 * voters.sum(axis=1)
        labels[part][known] = votes[known].argmax(axis=1)
    return replace(mesh, labels=labels, world_origin=cloud.world_origin)


def reconstructed(
    posed: Iterable[tuple[Observation, np.ndarray]],
    cloud: SurfelCloud,
    config: ReconstructionConfig | None = None,
) -> LabelledMesh:
    """The labelled mesh of observations with their poses (T_world_camera) and the surfels fused from them."""
    reconstruction = Reconstruction(config)
    for observation, T_world_camera in posed:
        reconstruction.integrate(observation.depth, observation.color, observation.camera, T_world_camera)
    return labelled(reconstruction.mesh(), cloud, reconstruction.config.label_radius)


def mesh_of_map(
    cloud: SurfelCloud, camera: Camera, T_world_camera: Sequence[np.ndarray], config: ReconstructionConfig
) -> LabelledMesh:
    """The labelled mesh of a map whose frames are not at hand: of what it shows from some of the poses (4, 4)."""
    views = evenly_spread(T_world_camera, VIEWS)
    config = replace(config, min_weight=0.5)  # a map has been seen often enough; one view of it will do
    return reconstructed(((observed(cloud, camera, T), T) for T in views), cloud, config)
