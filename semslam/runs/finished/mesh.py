"""mesh.ply of a finished run."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from semslam.cloud import CloudInParts, SurfelCloud
from semslam.frame import Frame, Observation, evenly_spread
from semslam.geometry import export
from semslam.geometry.mesh import LabelledMesh
from semslam.geometry.tsdf_mesh import (
    LABELLING_BYTES,
    ReconstructionConfig,
    depth_seen,
    frames_enough,
    mesh_of_map,
    reconstructed,
)
from semslam.labels import LABEL_SETS
from semslam.perception import Perception
from semslam.rendering.splatting import render
from semslam.runs.run import Run
from semslam.slam import SlamConfig

logger = logging.getLogger(__name__)

# Of the frames, at least and at most: a mesh at 10 mm changes little with more, and each costs as much as fusing three.
# All of a short recording, most places of which a fifth of its frames would show once or twice.
SHARE, FAST, ALL = 1 / 5, 2 / 5, 60
SAMPLED = 8  # frames that tell how far the camera sees


def write_mesh(run: Run, clouds: CloudInParts) -> None:
    """Write Open3D's TSDF of frames at their final poses, labelled from the surfels; of views of the map where it was
    begun by another run, whose frames are not at hand.

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
    """The mesh of frames that were fused, of every fifth or more where the camera moves fast, of depth as it was;
    predicted depth is taken as the map shows it."""
    config = run.config.slam.perception
    perceive = Perception(replace(config, labels="none"), run.sequence.camera, None, run.slam.network)
    near, _ = run.slam.fusion.config.range
    posed = list(run.progress.fused_poses().items())

    def observed(index: int, T: np.ndarray) -> Observation | None:
        if (frame := run.frames.try_read(index)) is None:
            number = run.sequence.number_of(index)
            logger.warning("frame %d can be read no more, and is left out of the mesh", number)
            return None
        if config.depth == "predicted":  # which is corrected on its way into the map, and only there
            return _rendered(frame, cloud, perceive, T)
        seen = perceive(frame)
        return replace(seen, depth=np.where(seen.depth > near, seen.depth, np.float32(0)))

    if len(posed) > ALL:
        sampled = (observed(index, T) for index, T in evenly_spread(posed, SAMPLED))
        depth = depth_seen(seen.depth for seen in sampled if seen is not None)
        least, most = (max(ALL, round(share * len(posed))) for share in (SHARE, FAST))
        enough = frames_enough([T for _, T in posed], perceive.camera, depth, least, most)
        posed = [posed[k] for k in enough]
    seen = ((observed(index, T), T) for index, T in posed)
    return reconstructed(((one, T) for one, T in seen if one is not None), cloud, reach)


def _rendered(frame: Frame, cloud: SurfelCloud, perception: Perception, T_world_camera: np.ndarray) -> Observation:
    """A frame whose depth is what the map shows there from a pose (4, 4)."""
    depth = render(cloud, perception.camera, T_world_camera).depth
    depth = np.where(np.isfinite(depth), depth, np.float32(0))
    return Observation(frame, perception.camera, perception.resized_color(frame), depth)
