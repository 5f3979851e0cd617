"""The ways to make a map that are compared: depth x poses x labels, and one correction of predicted depth at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from semslam import config as configs
from semslam.depth.corrections import CorrectionsConfig
from semslam.runs.config import RunConfig
from sequences import Sequence as Recording


@dataclass(frozen=True)
class Variant:
    """One way to make the map; its name is that of its folder."""

    name: str
    what: str  # for people
    depth: str  # sensor | predicted
    poses: str  # dataset | tracked
    labels: str = "predicted"  # predicted | truth
    corrections: str | None = None  # of predicted depth: all | none | names with commas
    fill: bool = False  # the sensor's holes

    def options(self) -> list[str]:
        """The options of `semslam reconstruct` that make it."""
        words = ["--depth", self.depth, *(["--corrections", self.corrections] if self.corrections else [])]
        words += ["--fill"] if self.fill else []
        return [*words, "--poses", self.poses, "--labels", self.labels, "--no-mesh"]

    def settings(self, base: RunConfig) -> RunConfig:
        """The settings of its run: those that all variants share, and its own."""
        changes: dict[str, Any] = {
            "poses": self.poses,
            "slam.perception.depth": self.depth,
            "slam.perception.labels": self.labels,
            "fill": self.fill,
        }
        if self.corrections:
            changes["slam.corrections"] = CorrectionsConfig.named(self.corrections)
        return configs.updated(base, changes, self.name)


@dataclass(frozen=True)
class Settings:
    """What all variants share; as options of the commands."""

    classes: str = "nyu40"  # 40 are scored as 13 too
    config: Path | None = None
    kind: str | None = None
    weights: str | None = None
    engine: str | None = None
    truth: str = "auto"
    start: int | None = None
    frames: int | None = None
    every: int | None = None

    def options(self, *names: str) -> list[str]:
        """Those of the options that were chosen, as typed."""
        values = [(name, getattr(self, name)) for name in names]
        return [word for name, value in values if value is not None for word in (f"--{name}", str(value))]


def variants_of(sequence: Recording) -> list[Variant]:
    """Every variant that a sequence allows: depth x poses x labels, and one more correction at a time."""
    known = [f.name for f in fields(CorrectionsConfig)]
    poses = "dataset" if sequence.has_poses else "tracked"
    found = [Variant("sensor", "sensor depth", "sensor", poses)]
    found.append(Variant("predicted_raw", "predicted depth, raw", "predicted", poses, corrections="none"))
    for k, name in enumerate(known[:-1], 1):
        chosen = ",".join(known[:k])
        found.append(Variant(f"predicted_{k}_{name}", f"+ {name}", "predicted", poses, corrections=chosen))
    every = "predicted depth, all corrections"
    found.append(Variant("predicted_all", every, "predicted", poses, corrections="all"))
    found.append(Variant("sensor_filled", "sensor depth, holes filled", "sensor", poses, fill=True))
    if sequence.has_poses:
        raw = "predicted depth, raw, tracked poses"
        found.append(Variant("sensor_tracked", "sensor depth, tracked poses", "sensor", "tracked"))
        found.append(Variant("predicted_raw_tracked", raw, "predicted", "tracked", corrections="none"))
        found.append(
            Variant("predicted_all_tracked", f"{every}, tracked poses", "predicted", "tracked", corrections="all")
        )
    if sequence.has_labels:
        true = f"{every}, true labels"
        found.append(Variant("sensor_true_labels", "sensor depth, true labels", "sensor", poses, "truth"))
        found.append(Variant("predicted_all_true_labels", true, "predicted", poses, "truth", "all"))
    return [variant for variant in found if sequence.has_depth or variant.depth == "predicted"]


def chosen_variants(variants: Sequence[Variant], names: str | None) -> list[Variant]:
    """Those that are named with commas, in their order; None or "all" is every one. ValueError names the known ones."""
    if names is None or names.strip() == "all":
        return list(variants)
    wanted = {name.strip() for name in names.split(",") if name.strip()}
    known = [variant.name for variant in variants]
    for name in sorted(wanted):
        if name not in known:
            raise ValueError(f"--variants: there is no {name!r} of this sequence; there are {', '.join(known)}")
    if not wanted:
        raise ValueError(f"--variants names none; there are {', '.join(known)}")
    return [variant for variant in variants if variant.name in wanted]
