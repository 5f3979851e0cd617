"""Judging variants as `semslam evaluate` would, all of a sequence against the same truth and from the same view."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from semslam.camera import Camera
from semslam.comparison.depth_study import DepthStudy
from semslam.comparison.pictures import overview_of, painted_views
from semslam.comparison.report import number
from semslam.comparison.variants import Variant
from semslam.judging.run import Evaluation, evaluate_run, keep, surface_reference, world_alignment
from semslam.perception import Network
from semslam.runs.folder import RunFolder
from semslam.trajectory import Trajectory
from sequences import Sequence as Recording


@dataclass(frozen=True, eq=False)
class VariantResult:
    """A finished variant and what can be said of it."""

    variant: Variant
    folder: RunFolder
    figures: dict[str, Any]  # of metrics.json, the evaluation's among them
    evaluation: Evaluation
    estimate: Trajectory  # every frame, in the run's own world
    tracked: np.ndarray  # (len(estimate),) bool: not lost
    pictures: tuple[np.ndarray, ...]  # colours, classes, errors: (H, W, 3) uint8 each; none of an empty map

    def row(self, keys: Iterable[tuple[str, float, int]]) -> tuple[str, ...]:
        """A table's row: its name, and its figures of (name, factor, decimals)."""
        return (self.variant.what, *(number(self.figures.get(name), d, factor) for name, factor, d in keys))


class Judge:
    """Judges the variants of one sequence, one after the other."""

    def __init__(
        self,
        sequence: Recording,
        truth: str,
        network: Network,
        limits: tuple[float, float],
        world_origin: np.ndarray | None = None,
    ) -> None:
        """sequence: as `judged_recording` makes it. truth, limits, world_origin: as in `scene_reference`.
        network: of NYU-13 or NYU-40."""
        self.sequence, self.truth, self.network, self.limits = sequence, truth, network, limits
        self.reference = surface_reference(sequence, truth, lambda: limits, world_origin)
        self.depth = DepthStudy(sequence, network, self.reference) if sequence.has_depth else None
        self._view: tuple[Camera, np.ndarray] | None = None
        self._label_frames: list[int] | None = None  # in which all maps are judged: whose labels the first one fused

    def __call__(self, variant: Variant, folder: RunFolder) -> VariantResult:
        """What can be said of a finished variant; its figures go into its metrics.json too."""
        network = self.network if variant.labels == "predicted" else None
        progress = folder.load_progress()
        self._label_frames = self._label_frames or progress.labelled
        evaluation = evaluate_run(
            folder.path,
            self.truth,
            sequence=self.sequence,
            network=network,
            reference=self.reference,
            label_frames=self._label_frames,
        )
        estimate, tracked = progress.trajectory(), progress.tracked
        figures = keep(evaluation, folder)
        cloud, labels = folder.load_cloud()
        pictures: tuple[np.ndarray, ...] = ()
        if len(cloud):
            if self.depth is not None:
                self.depth.add_map(variant.name, cloud, progress.posed(), self.limits)
            T = np.eye(4)
            if variant.poses != "dataset" and self.sequence.trajectory is not None and tracked.any():
                T = world_alignment(estimate.selected(tracked), self.sequence.trajectory)
            shown = cloud.moved(T)
            if self._view is None:  # one camera for all variants' pictures, chosen for the first one's map
                self._view = overview_of(shown, labels, self.sequence.trajectory)
            pictures = painted_views(shown, labels, evaluation.errors, self._view)
        return VariantResult(variant, folder, figures, evaluation, estimate, tracked, pictures)
