"""What predicted depth costs: one sequence through the loop again and again, each time with one thing different.

Each variant is a run folder of its own, made as `semslam reconstruct` would make it and judged as `semslam evaluate`
would judge it; what was done before with the same settings and weights is not done again.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from semslam import config as configs
from semslam.camera import Camera
from semslam.cloud import SurfelCloud
from semslam.comparison.depth_study import DepthStudy, moved
from semslam.comparison.report import number
from semslam.depth.corrections import CorrectionsConfig
from semslam.judging.run import FAR, NEAR, Evaluation, evaluate_run, scene_reference, world_alignment
from semslam.metrics.surface import Reference
from semslam.metrics.trajectory import absolute_error
from semslam.perception import Network
from semslam.runs import networks
from semslam.runs.config import RunConfig, settings_of
from semslam.runs.folder import RunFolder, write_json
from semslam.runs.reconstruct import finish, prepare
from semslam.runs.run import Run
from semslam.trajectory import Trajectory

MADE_BY = "variant.json"  # in a variant's folder: the weights that it was made with


@dataclass(frozen=True)
class Variant:
    """One way to make the map; its name is that of its folder."""

    name: str
    what: str  # for people
    depth: str  # sensor | predicted
    poses: str  # dataset | tracked
    labels: str  # predicted | truth
    helps: str | None = None  # corrections of predicted depth


@dataclass(frozen=True)
class Settings:
    """What all variants share; as options of the commands."""

    classes: str = "nyu40"  # 40 are scored as 13 too
    config: Path | None = None
    kind: str | None = None
    weights: str | None = None
    engine: str | None = None
    truth: str = "auto"

    def options(self, *names: str) -> list[str]:
        """Those of the options that were chosen, as typed."""
        values = [(name, getattr(self, name)) for name in names]
        return [word for name, value in values if value is not None for word in (f"--{name}", str(value))]


def variants_of(sequence: Any) -> list[Variant]:
    """Every variant that a sequence allows: depth x poses x labels, and one more help at a time."""
    helps = [f.name for f in fields(CorrectionsConfig)]
    given, found = sequence.has_poses, []
    poses = "dataset" if given else "tracked"
    if sequence.has_depth:
        found.append(Variant("sensor", "sensor depth", "sensor", poses, "predicted"))
    found.append(Variant("predicted_raw", "predicted depth, raw", "predicted", poses, "predicted", "none"))
    for k in range(1, len(helps)):
        chosen = ",".join(helps[:k])
        found.append(
            Variant(f"predicted_{k}_{helps[k - 1]}", f"+ {helps[k - 1]}", "predicted", poses, "predicted", chosen)
        )
    found.append(Variant("predicted_all", "predicted depth, all helps", "predicted", poses, "predicted", "all"))
    if given:
        if sequence.has_depth:
            found.append(Variant("sensor_tracked", "sensor depth, tracked poses", "sensor", "tracked", "predicted"))
        for name, what, chosen in (("raw", "raw", "none"), ("all", "all helps", "all")):
            what = f"predicted depth, {what}, tracked poses"
            found.append(Variant(f"predicted_{name}_tracked", what, "predicted", "tracked", "predicted", chosen))
    if sequence.has_labels:
        if sequence.has_depth:
            found.append(Variant("sensor_true_labels", "sensor depth, true labels", "sensor", poses, "truth"))
        what = "predicted depth, all helps, true labels"
        found.append(Variant("predicted_all_true_labels", what, "predicted", poses, "truth", "all"))
    return found


def chosen_variants(variants: Sequence[Variant], names: str | None) -> list[Variant]:
    """Those that are named with commas, in their order, all without names; ValueError names the known ones."""
    if names is None:
        return list(variants)
    wanted = {name.strip() for name in names.split(",") if name.strip()}
    known = [variant.name for variant in variants]
    for name in sorted(wanted):
        if name not in known:
            raise ValueError(f"--variants: there is no {name!r} of this sequence; there are {', '.join(known)}")
    if not wanted:
        raise ValueError(f"--variants names none; there are {', '.join(known)}")
    return [variant for variant in variants if variant.name in wanted]


@dataclass(frozen=True, eq=False)
class VariantResult:
    """A finished variant and what can be said of it."""

    variant: Variant
    folder: RunFolder
    commands: tuple[str, ...]  # that make and judge it
    figures: dict[str, Any]  # of metrics.json, the evaluation's among them
    evaluation: Evaluation
    estimate: Trajectory  # every frame, in the run's own world
    tracked: np.ndarray  # (len(estimate),) bool: not lost


@dataclass(eq=False)
class Comparison:
    """The variants of one sequence."""

    path: str  # of the sequence, as typed
    out: Path
    settings: Settings
    base: RunConfig  # settings of all variants
    sequence: Any
    variants: list[Variant]
    results: list[VariantResult] = field(default_factory=list)
    depth: DepthStudy | None = None  # None where the sequence has no depth to compare with
    reference: Reference | None = None
    network: Network | None = None
    view: tuple[Camera, np.ndarray] | None = None  # of the pictures
    pictures: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=dict)  # colour, class, error

    @property
    def name(self) -> str:
        return str(self.sequence.name)

    def main(self) -> list[str]:
        """The variants that plots show, where all would be too many."""
        names = [result.variant.name for result in self.results]
        return [name for name in ("sensor", "predicted_raw", "predicted_all") if name in names]

    def map_titles(self) -> dict[str, str]:
        """What the maps are called beside other sources of depth, by variant."""
        return {result.variant.name: f"map: {result.variant.what}" for result in self.results}

    def folder(self, variant: Variant) -> Path:
        return self.out / variant.name

    def commands(self, variant: Variant) -> tuple[str, str]:
        """What a person types to make this variant alone, and to judge it."""
        make = ["semslam", "reconstruct", self.path, "--out", str(self.folder(variant)), "--depth", variant.depth]
        make += ["--corrections", variant.helps] if variant.helps else []
        make += ["--poses", variant.poses, "--labels", variant.labels, "--no-mesh"]
        make += self.settings.options("classes", "config", "kind", "weights", "engine")
        judge = ["semslam", "evaluate", str(self.folder(variant)), *self.settings.options("truth")]
        return shlex.join(make), shlex.join(judge)

    @property
    def command(self) -> str:
        """What a person types for this comparison."""
        words = ["semslam", "compare", self.path, "--out", str(self.out)]
        if len(self.variants) < len(variants_of(self.sequence)):
            words += ["--variants", ",".join(variant.name for variant in self.variants)]
        words += self.settings.options("classes", "config", "kind", "weights", "engine", "truth")
        return shlex.join(words)

    def run_config(self, variant: Variant) -> RunConfig:
        """The settings that make this variant."""
        changes: dict[str, Any] = {
            "poses": variant.poses,
            "slam.perception.depth": variant.depth,
            "slam.perception.labels": variant.labels,
            "slam.perception.classes": self.settings.classes,
        }
        if variant.helps:
            changes["slam.corrections"] = CorrectionsConfig.named(variant.helps)
        return configs.updated(self.base, changes, variant.name)

    def prepared(self, variant: Variant) -> Run | None:
        """The variant's run, going on where it was interrupted; None if it is done already."""
        folder, config = RunFolder(self.folder(variant)), self.run_config(variant)
        made_by = {"weights": weights_digest(config.weights)}
        begun = folder.state.is_file() and folder.config.is_file() and _read_json(folder.path / MADE_BY) == made_by
        begun = begun and _config_of(folder) == config
        if begun and "state_bytes" in (_read_json(folder.metrics) or {}):
            return None
        run = prepare(config, folder.path, resume=begun, overwrite=True)
        reset_peak_memory()
        if not begun:
            for path in (folder.state, folder.metrics, folder.preview, folder.mesh):  # of other settings or weights
                path.unlink(missing_ok=True)
            write_json(folder.path / MADE_BY, made_by)
        return run

    def finish(self, run: Run) -> None:
        """Write what a run that came to its end leaves behind."""
        metrics = finish(run, mesh=False)
        metrics["peak_memory_bytes"] = peak_memory()
        metrics["map_bytes"] = run.folder.map.stat().st_size
        metrics["state_bytes"] = run.folder.state.stat().st_size  # the last figure: a variant that has it is done
        run.folder.save_metrics(metrics)

    def evaluate(self, variant: Variant) -> VariantResult:
        """Judge a finished variant; its figures go into its metrics.json too."""
        from semslam.comparison.pictures import painted_views

        folder = RunFolder.open(self.folder(variant))
        self._prepare_truth()
        network = self.network if variant.labels == "predicted" else None
        evaluation = evaluate_run(folder.path, self.settings.truth, self.sequence, network, self.reference)
        progress = folder.load_progress()
        figures = folder.load_metrics() | evaluation.figures
        estimate, tracked = progress.trajectory(), progress.tracked
        figures |= _with_scale(estimate, tracked, self.sequence.trajectory)
        folder.save_metrics(figures)
        if evaluation.errors is not None:
            folder.save_errors(evaluation.errors)  # for `semslam view --color-by error`
        cloud, labels = folder.load_cloud()
        if self.depth is not None and len(cloud):
            self.depth.add_map(variant.name, cloud, progress.posed(), NEAR, FAR)
        T = np.eye(4)
        if variant.poses != "dataset" and self.sequence.trajectory is not None and tracked.any():
            T = world_alignment(estimate.selected(tracked), self.sequence.trajectory)
        if len(cloud):
            shown = moved(cloud, T)
            self.pictures[variant.name] = painted_views(shown, labels, evaluation.errors, self._view(shown, labels))
        result = VariantResult(variant, folder, self.commands(variant), figures, evaluation, estimate, tracked)
        self.results.append(result)
        return result

    def _prepare_truth(self) -> None:
        if self.network is None:
            self.network = networks.predictor(self.settings.classes, self.settings.weights, self.settings.engine)
        posed_depth = self.sequence.has_poses and self.sequence.has_depth
        if self.reference is None and (posed_depth or self.settings.truth not in ("auto", "depth", "tsdf")):
            self.reference = scene_reference(self.sequence, self.settings.truth)
        if self.depth is None and self.sequence.has_depth:
            self.depth = DepthStudy(self.sequence, self.network, self.reference)

    def _view(self, cloud: SurfelCloud, labels: Any) -> tuple[Camera, np.ndarray]:
        """One camera for all variants' pictures, chosen for the first one's map."""
        if self.view is None:
            from semslam.comparison.pictures import overview_of

            self.view = overview_of(cloud, labels, self.sequence.trajectory)
        return self.view


def open_comparisons(
    paths: Sequence[str], out: Path, settings: Settings, variants: str | None = None
) -> list[Comparison]:
    """The comparisons of some sequences, nothing run yet: each in `out`, or in a folder of its name if they are many.

    variants: names with commas; None = every one that a sequence allows. What cannot be done is said now, in one line.
    """
    if settings.classes not in ("nyu13", "nyu40"):
        raise ValueError(f"--classes is {settings.classes!r}, expected nyu13 or nyu40")
    found: list[Comparison] = []
    base = settings_of(settings.config)
    settings = replace(settings, weights=settings.weights or base.weights, engine=settings.engine or base.engine)
    base = replace(base, weights=settings.weights, engine=settings.engine)
    for path in paths:
        shared = replace(
            base, sequence=path, kind=settings.kind or base.kind, weights=settings.weights, engine=settings.engine
        )
        sequence = shared.open_sequence()
        chosen = chosen_variants(variants_of(sequence), variants)
        folder = out if len(paths) == 1 else out / f"{len(found) + 1}_{sequence.name}"
        found.append(Comparison(path, folder, settings, shared, sequence, chosen))
    for comparison in found:
        RunFolder.create(comparison.out)  # find out now, not after the work, whether it can be written
    return found


def rows_of(results: Iterable[VariantResult], keys: Iterable[tuple[str, float, int]]) -> tuple[tuple[str, ...], ...]:
    """A table's rows: for each result its name and its figures of (name, factor, decimals)."""
    return tuple(
        (r.variant.what, *(number(r.figures.get(name), d, factor) for name, factor, d in keys)) for r in results
    )


def weights_digest(weights: str | None) -> str:
    """A name for the contents of a weights file: bundled ones change while their path does not."""
    return hashlib.sha256(networks.weights_file(weights).read_bytes()).hexdigest()[:16]


def reset_peak_memory() -> None:
    """Let `peak_memory` count from now on, where the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int | None:
    """Most bytes of memory that this process held since `reset_peak_memory`; None where the system does not say."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found.group(1)) * 1024 if found else None


def _config_of(folder: RunFolder) -> Any:
    try:
        return folder.load_config()
    except ValueError:  # written by another version, with other settings
        return None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _with_scale(estimate: Trajectory, tracked: np.ndarray, reference: Trajectory | None) -> dict[str, Any]:
    """ATE after a similarity, and its scale: a network's depth has a scale of its own, and so have its poses."""
    if reference is None or tracked.sum() < 3:
        return {}
    try:
        error = absolute_error(estimate.selected(tracked), reference, with_scale=True)
    except ValueError:
        return {}
    return {"ate_sim3_m": error.rmse, "trajectory_scale": error.alignment.scale}
