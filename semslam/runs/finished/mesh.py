"""mesh.ply of a finished run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from semslam.cloud import CloudInParts, SurfelCloud
from semslam.frame import Frame, Observation
from semslam.geometry import export
from semslam.geometry.mesh import LabelledMesh
from semslam.geometry.tsdf_mesh import LABELLING_BYTES, ReconstructionConfig, mesh_of_map, reconstructed
from semslam.labels import LABEL_SETS
from semslam.perception import Perception
from semslam.rendering.splatting import render
from semslam.runs.run import Run
from semslam.slam import SlamConfig

logger = logging.getLogger(__name__)

EVERY = 5  # frames; a mesh at 10 mm changes little with more, and each costs as much as fusing three


def write_mesh(run: Run, clouds: CloudInParts) -> None:
    """Write Open3D's TSDF of every n-th frame at its final pose, labelled from the surfels; of views of the map where
    it was begun by another run, whose frames are not at hand.

    clouds: the map. Of a map in parts the mesh is as fine as the memory that is allowed lets it be, and labelled from
    some of the surfels.
    """
    cloud, reach = _within_memory(run, clouds)
    if run.progress.before:
        assert run.slam.places is not None
        mesh = mesh_of_map(cloud, run.slam.fusion.camera, run.slam.places.T_world_camera, reach)
    else:
        mesh = mesh_of_frames(run, cloud, reach)
    export.write_mesh(run.folder.mesh, mesh, LABEL_SETS[run.config.slam.perception.classes])


def fineness(slam: SlamConfig, clouds: CloudInParts) -> ReconstructionConfig:
    """How fine the mesh of a map is: coarser where depth reaches far, and where memory is short.

    slam: the settings of its run, with what this found out about its depth.
    """
    reach, memory = ReconstructionConfig.reaching(slam.fusion.range[1]), slam.map.memory_bytes
    return reach if clouds.whole is not None or memory is None else reach.within(memory, clouds)


def _within_memory(run: Run, clouds: CloudInParts) -> tuple[SurfelCloud, ReconstructionConfig]:
    """The surfels that the mesh is labelled from, and its voxels: coarser, with a warning, where memory is short."""
    slam = run.progress.with_found(run.config.slam)
    reach, memory = fineness(slam, clouds), slam.map.memory_bytes
    if clouds.whole is not None or memory is None:
        return run.cloud() if clouds.whole is None else clouds.whole, reach
    finest = ReconstructionConfig.reaching(slam.fusion.range[1])
    if reach != finest:
        logger.warning(
            "the mesh has voxels of %.0f mm in place of %.0f, which is what %s of memory allows (slam.map.memory)",
            *(1e3 * reach.voxel_size, 1e3 * finest.voxel_size, run.config.slam.map.memory),
        )
    # where the frames' depth is what the map shows, all of it is drawn
    drawn = run.progress.before or run.config.slam.perception.depth == "predicted"
    return run.cloud() if drawn else clouds.sample(memory // LABELLING_BYTES), reach


def mesh_of_frames(run: Run, cloud: SurfelCloud, reach: ReconstructionConfig) -> LabelledMesh:
    """The mesh of every n-th frame that was fused, of depth as it was; predicted depth is taken as the map shows it."""
    config = run.config.slam.perception
    perceive = Perception(replace(config, labels="none"), run.sequence.camera, None, run.slam.network)
    near, _ = run.slam.fusion.config.range
    posed = list(run.progress.fused_poses().items())

    def observed() -> Iterator[tuple[Observation, np.ndarray]]:
        for index, T in posed[::EVERY]:
            if (frame := run.frames.try_read(index)) is None:
                number = run.sequence.number_of(index)
                logger.warning("frame %d can be read no more, and is left out of the mesh", number)
            elif config.depth == "predicted":  # which is corrected on its way into the map, and only there
                yield _rendered(frame, cloud, perceive, T), T
            else:
                seen = perceive(frame)
                yield replace(seen, depth=np.where(seen.depth > near, seen.depth, np.float32(0))), T

    return reconstructed(observed(), cloud, reach)


def _rendered(frame: Frame, cloud: SurfelCloud, perception: Perception, T_world_camera: np.ndarray) -> Observation:
    """A frame whose depth is what the map shows there from a pose (4, 4)."""
    depth = render(cloud, perception.camera, T_world_camera).depth
    depth = np.where(np.isfinite(depth), depth, np.float32(0))
    return Observation(frame, perception.camera, perception.resized_color(frame), depth)
