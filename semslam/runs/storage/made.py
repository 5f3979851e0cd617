"""Files that are made of a run's state, for people and other programs: trajectories, figures, mesh, errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semslam.files.reading import regular_size, text_of
from semslam.files.writing import replacing, write_json
from semslam.geometry import export
from semslam.geometry.mesh import LabelledMesh
from semslam.poses import moved_by
from semslam.runs.progress import Progress
from semslam.runs.storage.paths import OTHERS, RunPaths
from semslam.trajectory import Trajectory
from semslam.trajectory.files import write_tum


@dataclass(frozen=True)
class MadeFiles(RunPaths):
    """What a run leaves behind besides its state. All of it can be made again of that."""

    def save_trajectories(self, progress: Progress, world_origin: np.ndarray) -> list[Path]:
        """Write the paths in the map, the run's own and those of the other runs that it is of, as poses in the world;
        returns the files. world_origin: (3,), of the map."""
        for path in self.path.glob(OTHERS):
            path.unlink()
        _write_poses(self.trajectory, progress.trajectory().selected(progress.tracked), world_origin)
        self.fused_trajectory.unlink(missing_ok=True)
        fused = [self.fused_trajectory] if progress.poor else []
        for path in fused:
            _write_poses(path, progress.trajectory().selected(progress.tracked_well), world_origin)
        others = progress.others_in_map
        files = [self.other_trajectory(number) for number in range(1, len(others) + 1)]
        for path, other in zip(files, others):
            _write_poses(path, other.trajectory(), world_origin, f"of {json.dumps(other.folder)}, in this run's world")
        return [self.trajectory, *fused, *files]

    def save_part_trajectory(self, number: int, trajectory: Trajectory, world_origin: np.ndarray) -> None:
        """Write the poses of a part of the scene that has not met the map as poses in its world."""
        _write_poses(self.part_trajectory(number), trajectory, world_origin)

    def write_text(self, name: str, text: str) -> None:
        """Write a file of the run's, whole or not at all."""
        with replacing(self.path / name) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def save_metrics(self, metrics: dict[str, Any]) -> None:
        write_json(self.metrics, metrics)

    def load_metrics(self) -> dict[str, Any]:
        """What `save_metrics` wrote; nothing where a run was interrupted before. ValueError where it is damaged."""
        if not self.metrics.exists():
            return {}
        with self._made_again(self.metrics):
            found = json.loads(text_of(self.metrics))
            if not isinstance(found, dict):
                raise ValueError(f"{type(found).__name__}, expected figures by name")
        return found

    def load_mesh(self) -> LabelledMesh | None:
        """The mesh of the run; None where it has none, ValueError where it is damaged."""
        if not self.mesh.exists():
            return None
        with self._made_again(self.mesh):
            return export.read_mesh_ply(self.mesh)

    def save_errors(self, errors: np.ndarray) -> None:
        """Keep (N,) float32 metres, NaN where a surfel was not judged, in the order of `load_cloud`."""
        with replacing(self.errors) as temporary, Path(temporary).open("wb") as file:
            np.save(file, errors)

    def load_errors(self) -> np.ndarray | None:
        """What `save_errors` kept; None where the run was not evaluated."""
        if not self.errors.exists():
            return None
        regular_size(self.errors)
        try:
            found = np.load(self.errors, allow_pickle=False)
            if not isinstance(found, np.ndarray) or found.dtype != np.float32 or found.ndim != 1:
                raise ValueError
            return found
        except (ValueError, EOFError):
            raise ValueError(f"{self.errors}: damaged; `semslam evaluate {self.path}` writes it again") from None

    @contextmanager
    def _made_again(self, path: Path) -> Iterator[None]:
        """Raise ValueError, with what to do, where a file that was made of the state cannot be read."""
        try:
            yield
        except ValueError as error:
            reason = str(error).removeprefix(f"{path}: ")
            raise ValueError(
                f"{path}: damaged ({reason}); remove it to go on without, or have it made again by the command that "
                f"made {self.path}: `semslam reconstruct` with --resume, others with --overwrite"
            ) from None


def _write_poses(path: Path, trajectory: Trajectory, world_origin: np.ndarray, comment: str = "") -> None:
    """Write poses that are relative to the origin (3,) of the map as poses in the world: TUM lines, after a comment."""
    world = Trajectory(trajectory.timestamps, moved_by(trajectory.T_world_camera, world_origin))
    with replacing(path) as temporary:
        write_tum(temporary, world, comment)
