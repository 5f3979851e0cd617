"""Where each file of a run is, and how a whole new run takes the place of an old one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from semslam.runs.color_only.fitted import FITTED
from semslam.runs.color_only.poses import KEPT
from semslam.runs.storage.checkpoint import Checkpoint

# folders in a run's: of the run that will replace it, of that one when it is whole, and when the old one is removed
REPLACEMENT, REPLACED_BY, MOVING = ".new", ".ready", ".moving"
OTHERS = "other_trajectory_[0-9]*.txt"  # the names of `RunPaths.other_trajectory`
NUMBERED = (OTHERS, "map_[0-9]*.ply", "trajectory_[0-9]*.txt")  # files that are made of a map
TRAJECTORY_PLOTS = ("trajectory.png", "trajectory_errors.png")  # of `semslam evaluate`: the path, its errors over time


@dataclass(frozen=True)
class RunPaths:
    """The files of one run. Each appears whole or not at all."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def trajectory(self) -> Path:
        return self.path / "trajectory.txt"

    @property
    def fused_trajectory(self) -> Path:
        """The poses of the frames that were fused, where there are others."""
        return self.path / "trajectory_fused.txt"

    @property
    def map(self) -> Path:
        """Surfels for other programs."""
        return self.path / "map.ply"

    def part_map(self, number: int) -> Path:
        """Surfels of a part of the scene, from 2, that has not met the map."""
        return self.path / f"map_{number}.ply"

    def part_trajectory(self, number: int) -> Path:
        """The poses of the same part, in its own world."""
        return self.path / f"trajectory_{number}.txt"

    def other_trajectory(self, number: int) -> Path:
        """The poses, in the world of this run, of another run, from 1, that it extends or was merged with."""
        return self.path / f"other_trajectory_{number}.txt"

    @property
    def state(self) -> Path:
        """The map without loss, and what is needed to go on."""
        return self.path / "map.npz"

    @property
    def filled(self) -> Path:
        """Surfels where the depth camera measured nothing, of a run whose holes were filled."""
        return self.path / "filled.npz"

    @property
    def associations(self) -> Path:
        """What is needed to fuse other labels into the same surfels."""
        return self.path / "associations.npz"

    @property
    def errors(self) -> Path:
        """Each surfel's distance to the reference that the run was last evaluated against."""
        return self.path / "errors.npy"

    @property
    def mesh(self) -> Path:
        return self.path / "mesh.ply"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    @property
    def preview(self) -> Path:
        return self.path / "preview.png"

    @property
    def checkpoint(self) -> Checkpoint:
        """The state of a run that was not ended: it was killed, or is in progress."""
        return Checkpoint(self.path / "checkpoint")

    @property
    def replacement(self) -> Self:
        """Where a run is made that will replace this one: this one stays whole until that one is."""
        return type(self)(self.path / REPLACEMENT)

    @property
    def final(self) -> Path:
        """Where the run will be when it is whole."""
        return self.path.parent if self.path.name == REPLACEMENT else self.path

    @property
    def title(self) -> str:
        """What pictures of the run are headed with."""
        return self.final.resolve().name

    @property
    def exists(self) -> bool:
        """Whether there is a run, finished or not."""
        return self.state.is_file() or self.checkpoint.exists

    @property
    def of_map(self) -> list[Path]:
        """Where the files are that are made of a map."""
        numbered = (path for names in NUMBERED for path in sorted(self.path.glob(names)))
        return [self.map, self.filled, self.mesh, self.preview, self.metrics, self.fused_trajectory, *numbered]

    @property
    def read_again(self) -> list[Path]:
        """Where the files are by which the run, or what was made of it, is known later."""
        state = [self.state, self.config, self.trajectory, self.associations, self.errors]
        found = [self.checkpoint.table, self.checkpoint.pages, self.path / KEPT, self.path / FITTED]
        return [*state, *found, *(path for path in self.of_map if path != self.preview)]

    @property
    def of_evaluation(self) -> list[Path]:
        """Where the files are that an evaluation leaves, beside its figures."""
        return [self.errors, *(self.path / name for name in TRAJECTORY_PLOTS)]

    @property
    def foreign(self) -> Path | None:
        """A file of no run that a run would replace here; None where there is none, or there is a run."""
        ours = [self.trajectory, *self.of_map, *self.of_evaluation]  # no others write associations.npz
        return None if self.exists else next(filter(Path.exists, ours), None)

    def check_names(self) -> None:
        """OSError where a folder has the name of one of the run's files, or a file that of its folder."""
        files = [self.config, self.trajectory, self.state, self.associations, *self.of_map, *self.of_evaluation]
        kept = [self.path / name for name in (KEPT, FITTED)]
        if (wrong := next(filter(Path.is_dir, [*files, *kept]), None)) is not None:
            raise OSError(
                f"{wrong}: is a folder, and the run writes a file of this name; move it, or name another --out"
            )
        if self.checkpoint.folder.is_file():
            raise OSError(f"{self.checkpoint.folder}: is a file, and the run makes a folder of this name; move it")

    def forget_derived(self) -> None:
        """Remove what was made of an earlier map: it is not this one's."""
        self.forget_evaluation()
        for path in self.of_map:
            path.unlink(missing_ok=True)

    def forget_evaluation(self) -> None:
        """Remove what an earlier evaluation left, beside its figures."""
        for path in self.of_evaluation:
            path.unlink(missing_ok=True)

    @property
    def is_replaced(self) -> bool:
        """Whether another run is whole here, and not yet in place of this one."""
        return any((self.path / name).is_dir() for name in (REPLACED_BY, MOVING))

    def finish_replacing(self) -> None:
        """Put a whole new run in place of the old one; what was broken off goes on.

        Its files are moved only when the old ones are removed: what is found here from then on is of the new run.
        """
        new, moving = self.path / REPLACED_BY, self.path / MOVING
        if new.is_dir():
            self.forget_derived()
            self.checkpoint.remove()
            kept = self.path / KEPT, self.path / FITTED
            for path in (self.state, self.associations, self.config, self.trajectory, *kept):
                if not (new / path.name).exists():
                    path.unlink(missing_ok=True)
            new.rename(moving)
        if moving.is_dir():
            for path in sorted(moving.iterdir()):
                path.replace(self.path / path.name)
            moving.rmdir()
