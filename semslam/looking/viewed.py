"""A map and what is shown with it, in words and colours: window, picture, page and film share it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from semslam.camera import Camera
from semslam.cloud import CloudInParts, SurfelCloud
from semslam.frame import UNLABELLED
from semslam.labels import LabelSet
from semslam.rendering.coloring import COLORINGS, graded
from semslam.rendering.legend import class_name, classes_present
from semslam.runs.folder import RunFolder
from sequences import Sequence as Recording

logger = logging.getLogger(__name__)
SHOWN_BYTES = 400  # a surfel, in windows, pages and films


@dataclass(frozen=True, eq=False)
class Viewed:
    """A map and what is shown with it."""

    cloud: SurfelCloud
    label_set: LabelSet
    name: str = ""
    paths: Sequence[np.ndarray] = ()  # each (N, 4, 4) float64 T_world_camera: see `Progress.paths`
    camera: Camera | None = None  # of the sequence, for the frusta
    errors: np.ndarray | None = None  # (N,) float32 metres from the reference surface, NaN = not compared
    number_of: Callable[[int], int] | None = None  # of a frame in the whole recording, where that is at hand
    all_of_it: CloudInParts | None = None  # the map itself, where the cloud is only some of its surfels, made larger

    @property
    def has_classes(self) -> bool:
        """Whether labels were fused into the map."""
        return self.cloud.class_probabilities is not None

    @property
    def trajectory(self) -> np.ndarray | None:
        """(N, 4, 4) the poses of all paths; None where there is none."""
        return np.concatenate(self.paths) if len(self.paths) else None

    def colored(self, coloring: str) -> np.ndarray:
        """(N, 3) uint8 colours; `coloring` is a name of COLORINGS, or error."""
        if coloring == "error":
            errors = np.full(len(self.cloud), np.nan) if self.errors is None else self.errors
            return graded(errors, 0, 0.05, "turbo")
        if coloring not in COLORINGS:
            raise ValueError(f"there is no coloring {coloring!r}; there are {', '.join([*COLORINGS, 'error'])}")
        return COLORINGS[coloring](self.cloud, self.label_set)

    def ids_of(self, names: Iterable[str]) -> list[int]:
        """The ids that some classes, by their names in a legend, have in this map's label set; none has another's."""
        names, ids = {*names}, (*range(len(self.label_set)), UNLABELLED)
        return [i for i in ids if class_name(self.label_set, i) in names]

    def without(self, hidden: Iterable[str]) -> Viewed:
        """The same without the surfels of some classes, by name."""
        ids = self.ids_of(hidden)

        def kept(cloud: SurfelCloud) -> np.ndarray:
            return ~np.isin(cloud.labels(), ids)

        keep = kept(self.cloud)
        errors = None if self.errors is None else self.errors[keep]
        whole = self.all_of_it and self.all_of_it.where(kept, sum(int(kept(part).sum()) for part in self.all_of_it))
        return replace(self, cloud=self.cloud.selected(keep), errors=errors, all_of_it=whole)


def viewed_run(run: str | Path) -> Viewed:
    """The map of a run folder, its paths, its camera and, where it was evaluated, its errors."""
    folder = RunFolder.open(run)
    clouds, label_set = folder.load_clouds()
    errors = folder.load_errors()
    if errors is not None and len(errors) != len(clouds):
        errors = None  # of an earlier map in this folder
    paths, recording = folder.load_progress().paths(), _recording_of(folder)
    camera, number_of = (None, None) if recording is None else (recording.camera, recording.number_of)
    memory = folder.load_config().slam.map
    most = (memory.memory_bytes or 0) // SHOWN_BYTES
    if clouds.whole is not None or len(clouds) <= most:
        return Viewed(clouds.sample(most), label_set, folder.title, paths, camera, errors, number_of)
    sample = clouds.sample(most)
    logger.warning(
        "%s: %d of its %d surfels are shown, made larger, since %s of memory allows no more (slam.map.memory); "
        "pictures (--png) in colours, classes, normals or entropy show all",
        *(run, len(sample), len(clouds), memory.memory),
    )
    if errors is not None:
        errors = errors[clouds.sampled(most)]
    return Viewed(sample, label_set, folder.title, paths, camera, errors, number_of, clouds)


def _recording_of(folder: RunFolder) -> Recording | None:
    """The run's sequence; None where that is no longer there."""
    try:
        return folder.open_sequence()
    except (ValueError, OSError):
        return None


def shown_range(coloring: str) -> str:
    """What the ends of a coloring's scale mean."""
    return {
        "confidence": "dark blue: seen once; yellow: merged often",
        "entropy": "black: certain of the class; yellow: all classes alike",
        "normal": "red, green, blue: x, y, z of the normal",
        "first_seen": "purple: first frames; yellow: last",
        "last_seen": "purple: long ago; yellow: last frames",
        "error": "blue: 0 cm; red: 5 cm or more from the reference; grey: not compared",
    }.get(coloring, "")


def description(viewed: Viewed, surfel: int) -> str:
    """One line on a surfel: its class, the runners-up, confidence, place in the world and when it was seen.

    Frames of other runs that the map is of have numbers below 0.
    """
    cloud = viewed.cloud
    probabilities = cloud.class_probabilities
    x, y, z = cloud.positions[surfel] + cloud.world_origin
    first, last = (
        index if index < 0 or viewed.number_of is None else viewed.number_of(index)
        for index in (int(cloud.first_seen[surfel]), int(cloud.last_seen[surfel]))
    )
    if probabilities is None or probabilities[surfel].max(initial=0) <= 0:
        classes = "unlabelled"
    else:
        best = np.argsort(-probabilities[surfel], kind="stable")[:3]
        classes = ", ".join(f"{viewed.label_set.classes[i]} {probabilities[surfel, i]:.2f}" for i in best)
    return (
        f"surfel {surfel}: {classes}; confidence {cloud.confidence[surfel]:.1f}, "
        f"radius {1000 * cloud.radii[surfel]:.1f} mm at ({x:.3f}, {y:.3f}, {z:.3f}) m, "
        f"seen in frames {first} to {last}"
    )


def legend_lines(viewed: Viewed) -> list[str]:
    """The legend as lines of text: share of the surface, name."""
    present = classes_present(viewed.cloud, viewed.label_set)
    return [f"  {100 * share:5.1f} %  {class_name(viewed.label_set, i)}" for i, share in present]
