"""A run on disk: how its files are written and read again; where they are, see `storage.paths`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from semslam import config as configs
from semslam.cloud import CloudInParts, SurfelCloud, joined
from semslam.engine.associations import Associations
from semslam.engine.labels.label_fusion import label_fusion
from semslam.engine.saved_surfels import StatePart, restored
from semslam.engine.surfels import SURFEL_ARRAYS, SurfelMap
from semslam.files.writing import remove_leftovers, replacing
from semslam.labels import LABEL_SETS, LabelSet
from semslam.runs.config import RunConfig
from semslam.runs.progress import IDENTIFYING, Progress, identity_of
from semslam.runs.recording import as_compared, found_again
from semslam.runs.storage.arrays import Damaged, load_arrays, naming, parts_of, save_arrays, stored_rows
from semslam.runs.storage.clouds import clouds_of
from semslam.runs.storage.lock import lock, unlock
from semslam.runs.storage.made import MadeFiles
from semslam.runs.storage.paths import REPLACED_BY
from semslam.stage import Layout, check_state, under_prefix
from semslam.trajectory import Trajectory
from sequences import Sequence as Recording
from sequences.rebased import without_poses

ADDED = ("surfels_filled", "surfels_of_planes")  # metrics of surfels that a run added to its map at its end
FILLED: Layout = {
    "positions": (np.float32, ("surfels", 3)),
    "normals": (np.float32, ("surfels", 3)),
    "radii": (np.float32, ("surfels",)),
    "confidence": (np.float32, ("surfels",)),
    "colors": (np.uint8, ("surfels", 3)),
    "first_seen": (np.int32, ("surfels",)),
    "last_seen": (np.int32, ("surfels",)),
    "world_origin": (np.float64, (3,)),
    "identity": (np.int64, ()),
}  # the arrays of filled.npz


@dataclass(frozen=True)
class RunFolder(MadeFiles):
    """A run on disk, written and read. Each file appears whole or not at all."""

    def in_the_way(self, settings: RunConfig) -> str:
        """What a new run with these settings would destroy here; nothing where it would only be made once more."""
        if not self.exists:
            return f"a file {foreign.name} that is not of a run" if (foreign := self.foreign) else ""
        if self.replacement.is_of(settings):
            return "an unfinished run that will replace another, which --resume goes on with"
        if not self.is_of(settings):
            return "a run with other settings" if self.is_readable else "a run that cannot be read"
        return "" if "frames" in self.load_metrics() else "an unfinished run, which --resume goes on with"

    def check_free(self, settings: RunConfig) -> None:
        """ValueError where a new run with these settings would destroy something here."""
        if found := self.in_the_way(settings):
            raise ValueError(f"{self.path}: holds {found}; name another --out, or add --overwrite")

    @property
    def unfinished(self) -> str:
        """What is said of a run without figures: how much of it is done; nothing of all others, nor where its figures
        cannot be read."""
        try:
            if "frames" in self.load_metrics():
                return ""
            done = int(self._newest_scalars("run_next_index")["run_next_index"])
            offered = self.load_recording()["fingerprint"]["frames"]
        except (ValueError, OSError):
            return ""
        if offered == done:
            return (
                f"all {done} frames are done, but {self.metrics.name} is missing: the run was stopped at its end, or "
                f"it was removed; the command that made the run writes it again: `semslam reconstruct` with --resume, "
                f"others with --overwrite"
            )
        return f"an unfinished run; its map is of {done} of {offered} frames"

    def is_of(self, settings: RunConfig) -> bool:
        """Whether there is a run, made with these settings."""
        try:
            return self.exists and as_compared(self.load_config(), settings) == settings
        except (ValueError, OSError):  # damaged
            return False

    @property
    def is_readable(self) -> bool:
        """Whether the settings of the run can be read: it is not damaged."""
        try:
            self.load_config()
        except (ValueError, OSError):
            return False
        return True

    @staticmethod
    def create(path: str | Path) -> RunFolder:
        """Make the folder for this process, and find out now, not after the work, whether it can be written."""
        folder = RunFolder(Path(path))
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            with replacing(folder.path / ".writable") as probe:
                probe.write_bytes(b"")
            (folder.path / ".writable").unlink()
        except OSError as error:
            raise OSError(
                f"{path}: cannot write the run here ({error.strerror or error}); name another --out"
            ) from error
        folder.check_names()
        lock(folder.path)
        remove_leftovers(folder.path)
        folder.finish_replacing()
        return folder

    @staticmethod
    def open(path: str | Path) -> RunFolder:
        """An existing run; FileNotFoundError where it has no map."""
        folder = RunFolder(Path(path))
        if folder.is_replaced:  # its maker was killed at the last step
            lock(folder.path)
            folder.finish_replacing()
            unlock(folder.path)
        if not folder.exists:
            missing = f"not a run, {folder.state.name} is missing" if folder.path.exists() else "no such folder"
            raise FileNotFoundError(f"{path}: {missing}; make one with `semslam reconstruct SEQUENCE --out {path}`")
        folder._check_of_one_moment()
        return folder

    def _check_of_one_moment(self) -> None:
        """ValueError where the map is of other frames than the figures: files of two runs, or of two moments of one,
        were mixed. Damaged files are told by those who need them."""
        try:
            figures = self.load_metrics()
            with naming(self.state):
                done = self._newest_scalars("run_next_index", *(f"run_{name}" for name in IDENTIFYING))
        except (ValueError, OSError):
            return
        frames, identity = figures.get("frames"), figures.get("identity")
        if frames is not None and frames != int(done["run_next_index"]):
            differ = f"{self.state.name} is of {int(done['run_next_index'])} frames and {self.metrics.name} of {frames}"
        elif identity is not None and identity != _identity_of(done):
            differ = f"{self.state.name} and {self.metrics.name} are of other frames, times or poses"
        else:
            return
        raise ValueError(
            f"{self.path}: {differ}: files of two runs, or of two moments of one, are mixed; copy the whole folder "
            f"again, or have the map ended (--resume)"
        )

    def fresh(self) -> RunFolder:
        """Where to make a new run: here or, where there is one already, where it stays hidden until it is whole."""
        if not self.exists:
            return self
        shutil.rmtree(self.replacement.path, ignore_errors=True)
        self.replacement.path.mkdir()
        return self.replacement

    def resumable(self, config: RunConfig) -> RunFolder:
        """Where the run with these settings goes on: here, or where one is made that will replace this one."""
        return self.replacement if self.replacement.is_of(config) else self

    def published(self) -> RunFolder:
        """The folder that a run made in its `replacement` has replaced; this folder itself for all other runs."""
        folder = RunFolder(self.final)
        if folder == self:
            unlock(self.path)
            return self
        self.path.rename(folder.path / REPLACED_BY)  # from here on the new run is the one that counts
        folder.finish_replacing()
        unlock(folder.path)
        return folder

    def load_config(self) -> RunConfig:
        """The settings that the run was made with."""
        with naming(self.state):
            text = str(self._newest_scalars("run_config")["run_config"])
        return _settings_of(text, str(self.path))

    def load_recording(self) -> dict[str, Any]:
        """What was kept to recognise the recording, see `recording.remembered`."""
        with naming(self.state):
            return json.loads(str(self._newest_scalars("run_recording")["run_recording"]))

    def load_poses_rejected(self) -> tuple[int, ...]:
        """The frames whose given pose the run does not use, since the images contradict it."""
        return tuple(self._newest_scalars("run_poses_rejected")["run_poses_rejected"].tolist())

    def open_sequence(self, moved_to: str | None = None) -> Recording:
        """The recording that the run was made of, without poses that it rejected; `moved_to`: where it is now.

        FileNotFoundError where it is not found, ValueError where another one is in its place.
        """
        config = self.load_config()
        sequence = found_again(config, self.load_recording(), self.final, moved_to)
        return without_poses(sequence, self.load_poses_rejected()) if config.poses_of_recording else sequence

    def save_state(self, parts: Iterable[StatePart], config: RunConfig) -> None:
        """Save the lossless state with the settings that it was made with, in one step."""
        settings = {"run_config": np.array(configs.to_yaml(config))}
        save_arrays(self.state, [*parts_of(settings), *parts], before=self.forget_derived)
        configs.save(self.config, config)  # for people
        self.checkpoint.remove()

    def load_state(self, stored: bool = False) -> dict[str, Any]:
        """What `save_state`, or a checkpoint after it, saved; ValueError where a file is not whole.

        stored: the arrays of the surfels as `StoredRows`.
        """
        if self._checkpoint_is_newer():
            state = self.checkpoint.load(stored)
        else:
            left = stored_rows(self.state, SURFEL_ARRAYS) if stored else {}
            state = load_arrays(self.state, without=left) | left
        return state

    def _checkpoint_is_newer(self) -> bool:
        if not self.checkpoint.exists:
            return False
        done = [self.checkpoint.load_arrays("run_next_index"), _scalars(self.state, "run_next_index")]
        return int(done[0]["run_next_index"]) > int(done[1].get("run_next_index", -1))

    def _newest_scalars(self, *names: str) -> dict[str, np.ndarray]:
        return self.checkpoint.load_arrays(*names) if self._checkpoint_is_newer() else _scalars(self.state, *names)

    def load_progress(self) -> Progress:
        """What the run has done; the surfels are not read."""
        if self._checkpoint_is_newer():
            state = self.load_state(stored=True)
        else:
            state = load_arrays(self.state, without=SURFEL_ARRAYS)
        with naming(self.state):
            return Progress.from_state(state)

    @property
    def in_parts(self) -> bool:
        """Whether the map is read in parts, by files in this folder: settings bound its memory (slam.map.memory)."""
        return self.load_config().slam.map.memory is not None and os.access(self.path, os.W_OK)

    def load_map(self, state: dict[str, Any] | None = None, paged: bool = False) -> SurfelMap:
        """The map of the run, or of a `load_state`; ValueError where its arrays do not fit together.

        paged: its surfels are kept in files of this folder, where the settings say how much memory they may take.
        """
        state, config = self.load_state() if state is None else state, self.load_config().slam.map
        with naming(self.state):
            return restored(state, config, self.path if paged else None)

    def save_associations(self, associations: Associations) -> None:
        save_arrays(self.associations, parts_of(associations.state()))

    def load_associations(self, state: dict[str, np.ndarray]) -> Associations | None:
        """Those of the run with this state, as many events as it counts; None where they were not kept.

        ValueError where they are of another run.
        """
        saved = under_prefix("associations_", state)
        if "run_events" not in state or not (saved or self.associations.exists()):
            return None
        try:
            saved = saved or load_arrays(self.associations)
        except Damaged as error:
            remedy = "remove it to go on without: the map then cannot be relabelled"
            raise Damaged(error.path, error.reason, remedy) from None
        with naming(self.associations):
            beside = self.path if os.access(self.path, os.W_OK) else None
            found = Associations.from_state(saved, int(state["run_events"]), beside)
        indices, counts = (np.asarray(state.get(name, ())) for name in ("run_indices", "counts"))
        if len(found.events) < int(state["run_events"]) or not found.are_of(indices, counts):
            raise ValueError(f"{self.path}: {self.associations.name} and {self.state.name} are of different runs")
        return found

    def load_cloud(self) -> tuple[SurfelCloud, LabelSet]:
        """The map as plain arrays with all class probabilities, and the classes it tells apart.

        Of sub-maps that have not met, the largest; filled surfels last.
        """
        config, state = self.load_config(), self.load_state()
        surfels = self.load_map(state)
        with naming(self.state):
            progress = Progress.from_state(state)
        labels = LABEL_SETS[config.slam.perception.classes]
        fusion = label_fusion(config.slam.labels)
        cloud = surfels.cloud(fusion.probabilities(surfels) if surfels.num_classes else None)
        cloud, filled = progress.part_of(cloud, progress.parts[0]), self.load_filled()
        return cloud if filled is None else joined([cloud, filled]), labels

    def load_clouds(self) -> tuple[CloudInParts, LabelSet]:
        """`load_cloud` in parts that need no more memory than the settings say (slam.map.memory), from files of this
        folder; as a whole where they say nothing, or the folder cannot be written to."""
        config = self.load_config()
        if not self.in_parts:
            cloud, label_set = self.load_cloud()
            return CloudInParts.of(cloud), label_set
        state, filled = self.load_state(stored=True), self.load_filled()
        with naming(self.state):
            progress = Progress.from_state(state)
        labels, more = label_fusion(config.slam.labels), [] if filled is None else [filled]
        clouds = clouds_of(self.load_map(state, paged=True), labels, progress, progress.parts[0], more)
        return clouds, LABEL_SETS[config.slam.perception.classes]

    @property
    def nothing_mapped(self) -> str:
        """What is said of a run whose map has no surfels."""
        doctor = self.load_config().doctor
        return f"{self.path}: its map is empty, no frame was fused; `{doctor}` looks for the cause"

    def save_filled(self, cloud: SurfelCloud, identity: int) -> None:
        """Keep the surfels that fill the holes of the map; identity: `Progress.identity` of the run."""
        arrays = {f.name: getattr(cloud, f.name) for f in fields(cloud)} | {"identity": np.array(identity, np.int64)}
        save_arrays(self.filled, parts_of({name: array for name, array in arrays.items() if array is not None}))

    def count_filled(self) -> int:
        """How many surfels fill holes of the map, also where they cannot be read."""
        try:
            return len(self.load_filled() or ())
        except ValueError:
            return self._filled_by_figures()

    def _filled_by_figures(self) -> int:
        try:
            figures = self.load_metrics()
        except ValueError:  # told by those who need them
            return 0
        return sum(int(figures.get(name, 0)) for name in ADDED)

    def load_filled(self) -> SurfelCloud | None:
        """What `save_filled` kept; None of a run whose holes were not filled.

        ValueError where the file is damaged, of another run, or missing though the figures count its surfels.
        """
        if not self.filled.is_file():
            if count := self._filled_by_figures():
                raise ValueError(
                    f"{self.filled}: is missing, with {count} surfels of the map; copy the whole run again, or have "
                    f"it made again: `semslam reconstruct` with --resume, others with --overwrite"
                )
            return None
        arrays = load_arrays(self.filled)
        with naming(self.state):
            state = self._newest_scalars("classes", *(f"run_{name}" for name in IDENTIFYING))
        with naming(self.filled):
            layout = dict(FILLED)
            if classes := int(state["classes"]):
                layout["class_probabilities"] = (np.float32, ("surfels", classes))
            check_state(arrays, layout)
            if int(arrays.pop("identity")) != _identity_of(state):
                raise ValueError("is of another run, or of another moment of this one")
            if not np.isfinite(arrays["positions"]).all():
                raise ValueError("some positions are not finite")
            return SurfelCloud(**arrays)

    def load_trajectory(self) -> Trajectory:
        """The poses of the largest sub-map, relative to the origin of the map; without loss, unlike trajectory.txt."""
        progress = self.load_progress()
        return progress.trajectory().selected(progress.tracked)


def _identity_of(state: dict[str, np.ndarray]) -> int:
    """`Progress.identity` of a state that has what it is made of."""
    return identity_of(*(state[f"run_{name}"] for name in IDENTIFYING))


@lru_cache(maxsize=8)
def _settings_of(text: str, where: str) -> RunConfig:
    """Settings as a run kept them. Commands ask for them several times, and reading YAML takes 50 ms."""
    try:
        return configs.from_dict(configs.parsed_yaml(text), RunConfig, where)
    except ValueError as error:
        raise ValueError(f"{error}; another version of semslam made this run: make it again") from None


def _scalars(path: Path, *names: str) -> dict[str, np.ndarray]:
    return load_arrays(path, names) if path.is_file() else {}
