"""A run on disk: where each file of a reconstruction is, and how it is written and read again."""

from __future__ import annotations

import json
import logging
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from semslam.atomic import replacing
from semslam.cloud import SurfelCloud
from semslam.engine.associations import Associations
from semslam.engine.label_fusion import label_fusion
from semslam.engine.surfels import SurfelMap
from semslam.labels import LABEL_SETS, LabelSet
from semslam.runs.config import RunConfig, load
from semslam.runs.progress import Progress
from semslam.trajectory import Trajectory, read_tum, write_tum

TRAJECTORY_PLOTS = ("trajectory.png", "trajectory_errors.png")  # of `semslam evaluate`: the path, its errors over time


@dataclass(frozen=True)
class RunFolder:
    """The files of one run. Each appears whole or not at all."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def trajectory(self) -> Path:
        return self.path / "trajectory.txt"

    @property
    def map(self) -> Path:
        """Surfels for other programs."""
        return self.path / "map.ply"

    @property
    def state(self) -> Path:
        """The map without loss, and what is needed to go on."""
        return self.path / "map.npz"

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

    def in_the_way(self, settings: RunConfig) -> str:
        """What a new run with these settings would destroy here; nothing where it would only be made once more."""
        if not self.state.is_file():
            return f"a {self.map.name} that is not of a run" if self.map.is_file() else ""
        try:
            same = self.load_config() == settings
        except (ValueError, OSError):  # of another version
            same = False
        if not same:
            return "a run with other settings"
        return "" if "frames" in self.load_metrics() else "an unfinished run, which --resume goes on with"

    @staticmethod
    def create(path: str | Path) -> RunFolder:
        """Make the folder, and find out now, not after the work, whether it can be written."""
        folder = RunFolder(Path(path))
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            with replacing(folder.path / ".writable") as probe:
                probe.write_bytes(b"")
            (folder.path / ".writable").unlink()
        except OSError as error:
            raise OSError(
                f"{path}: cannot write the run here ({error.strerror or error}); name another --out"
            ) from None
        return folder

    @staticmethod
    def open(path: str | Path) -> RunFolder:
        """An existing run; FileNotFoundError where it has no map."""
        folder = RunFolder(Path(path))
        if not folder.state.is_file():
            raise FileNotFoundError(
                f"{path}: not a run, {folder.state.name} is missing; make one with "
                f"`semslam reconstruct SEQUENCE --out {path}`"
            )
        return folder

    def load_config(self) -> RunConfig:
        """The settings that the run was made with."""
        return load(self.config, logging.DEBUG)

    def save_state(self, state: dict[str, np.ndarray]) -> None:
        _save_arrays(self.state, state)

    def load_state(self) -> dict[str, np.ndarray]:
        """What `save_state` wrote; ValueError where the file is not whole."""
        return _load_arrays(self.state)

    def load_progress(self) -> Progress:
        """What the run has done."""
        return Progress.from_state(self.load_state())

    def save_associations(self, associations: Associations) -> None:
        _save_arrays(self.associations, associations.state())

    def load_associations(self, events: int | None = None) -> Associations:
        """What `save_associations` wrote, or its first `events`; FileNotFoundError where the run has none."""
        return Associations.from_state(_load_arrays(self.associations), events)

    def load_cloud(self) -> tuple[SurfelCloud, LabelSet]:
        """The map as plain arrays with all class probabilities, and the classes it tells apart."""
        config = self.load_config()
        surfels = SurfelMap.from_state(self.load_state(), config.slam.map)
        labels = LABEL_SETS[config.slam.perception.classes]
        fusion = label_fusion(config.slam.labels)
        return surfels.cloud(fusion.probabilities(surfels) if surfels.num_classes else None), labels

    def save_errors(self, errors: np.ndarray) -> None:
        """Keep (N,) float32 metres, NaN where a surfel was not judged, in the order of `load_cloud`."""
        with replacing(self.errors) as temporary, Path(temporary).open("wb") as file:
            np.save(file, errors)

    def load_errors(self) -> np.ndarray | None:
        """What `save_errors` kept; None where the run was not evaluated."""
        return np.load(self.errors, allow_pickle=False) if self.errors.is_file() else None

    def save_trajectory(self, trajectory: Trajectory) -> None:
        with replacing(self.trajectory) as temporary:
            write_tum(temporary, trajectory)

    def load_trajectory(self) -> Trajectory:
        return read_tum(self.trajectory)

    def save_metrics(self, metrics: dict[str, Any]) -> None:
        write_json(self.metrics, metrics)

    def forget_derived(self) -> None:
        """Remove what was made of an earlier map: it is not this one's."""
        plots = (self.path / name for name in TRAJECTORY_PLOTS)
        for path in (self.errors, self.map, self.mesh, self.preview, self.metrics, *plots):
            path.unlink(missing_ok=True)

    def load_metrics(self) -> dict[str, Any]:
        """What `save_metrics` wrote; nothing where a run was interrupted before."""
        if not self.metrics.is_file():
            return {}
        try:
            return json.loads(self.metrics.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{self.metrics}: not JSON ({error})") from None


def _save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with replacing(path) as temporary, Path(temporary).open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _load_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy raise a dozen kinds for a damaged file
        raise ValueError(f"{path}: damaged ({error}); run `semslam reconstruct` again") from None


def write_json(path: str | Path, values: dict[str, Any]) -> None:
    """Write figures as JSON, whole or not at all; NaN, which JSON has not, becomes null."""
    with replacing(path) as temporary:
        text = json.dumps(_jsonable(values), indent=2, allow_nan=False)
        Path(temporary).write_text(text + "\n", encoding="utf-8")


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _jsonable(v) for key, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_jsonable(v) for v in value]
    if isinstance(value, np.generic):
        return _jsonable(value.item())
    return None if isinstance(value, float) and not np.isfinite(value) else value


def versions() -> dict[str, str]:
    """The versions that decide what a run computes."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in ("semslam", "numpy", "numba", "torch", "open3d-cpu", "open3d", "opencv-python-headless"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
