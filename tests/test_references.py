"""The surface that maps are held against is whole on long ways too, and its absence is told."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from semslam.camera import Camera
from semslam.frame import Frame
from semslam.geometry.tsdf_mesh import ReconstructionConfig
from semslam.judging.references import scene_reference

CAMERA = Camera(80, 60, 65.0, 65.0, 39.5, 29.5)
LIMITS = (0.3, 5.0)


class Corridor:
    """3 m wide, 2.6 m high, walked through at 8 cm a frame."""

    name, label_set, world_origin, camera = "corridor", None, np.zeros(3), CAMERA
    has_poses = has_depth = True
    camera_moved = None

    def __init__(self, frames: int) -> None:
        rays = CAMERA.backproject(np.ones(CAMERA.shape, np.float32))
        with np.errstate(divide="ignore"):
            depth = np.minimum(1.5 / np.abs(rays[..., 0]), 1.3 / np.abs(rays[..., 1]))
        self.depth = np.where(depth < LIMITS[1], depth, 0).astype(np.float32)
        self.poses = list(np.tile(np.eye(4), (frames, 1, 1)))
        for i, T in enumerate(self.poses):
            T[2, 3] = 0.08 * i

    def mesh(self) -> None:
        return None

    def try_read(self, i: int) -> Frame:
        return Frame(i, i / 30, np.zeros((*CAMERA.shape, 3), np.uint8), CAMERA, self.depth, None, self.poses[i])


@pytest.fixture
def coarse(monkeypatch):
    """Voxels of 10 cm, and recordings whose depth and colour need no moving."""
    config = ReconstructionConfig(voxel_size=0.1)
    monkeypatch.setattr("semslam.judging.references.ReconstructionConfig", SimpleNamespace(reaching=lambda _: config))
    monkeypatch.setattr("semslam.judging.references.synchronised_by", lambda sequence, *_: sequence)
    monkeypatch.setattr("semslam.judging.references.readout_of", lambda _: None)


def test_a_long_way_has_a_reference_all_along(coarse):
    reference = scene_reference(Corridor(1000), "tsdf", LIMITS)
    along = np.histogram(reference.points[:, 2], np.arange(4, 80, 1.0))[0]
    assert along.min() > 0.7 * np.median(along)


def test_depth_that_makes_no_mesh_is_told(coarse, caplog):
    corridor = Corridor(3)
    corridor.depth = np.where(corridor.depth > 3, 0.0, corridor.depth)
    corridor.depth[::2] = corridor.depth[:, ::2] = 0  # nothing that a mesh could be made of
    with pytest.raises(ValueError, match="corridor: its depth and poses make no mesh between 3 and 5 m; name a file"):
        scene_reference(corridor, "tsdf", (3, 5))
    with pytest.raises(ValueError, match="no frame has a pose and depth"):
        scene_reference(corridor, "auto", (3, 5))
    assert "maps are compared with the depth itself" in caplog.text
