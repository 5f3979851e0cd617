"""What predicted depth costs: one sequence through the loop again and again, each time with one thing different.

Each variant is a run folder of its own, made as `semslam reconstruct` would make it (making.py) and judged as
`semslam evaluate` would judge it (judged.py); the report is drawn from the results (sections.py).
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from semslam import config as configs
from semslam.comparison.judged import Judge, VariantResult
from semslam.comparison.making import check_free, is_done, prepared
from semslam.comparison.variants import Settings, Variant, chosen_variants, variants_of
from semslam.doctor.poses.convention import as_meant
from semslam.judging.run import depth_limits, judged_recording, origin_of
from semslam.perception import Network
from semslam.runs import networks
from semslam.runs.config import RunConfig, settings_of
from semslam.runs.folder import RunFolder
from semslam.runs.recording import check_apart
from semslam.runs.run import Run
from sequences import Sequence as Recording

PART = ("start", "frames", "every")  # of the sequence
MAKING = ("classes", "config", "kind", "weights", "engine", *PART)  # options of the command that makes a run


@dataclass(eq=False)
class Comparison:
    """The variants of one sequence."""

    path: str  # of the sequence, as typed
    out: Path
    settings: Settings
    base: RunConfig  # settings of all variants
    sequence: Recording
    variants: list[Variant]
    results: list[VariantResult] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)  # variants that could not be made, and why

    @property
    def name(self) -> str:
        return str(self.sequence.name)

    @cached_property
    def network(self) -> Network:
        """The network of all variants, loaded when the first one needs it."""
        s = self.settings
        return networks.predictor(s.classes, s.weights, s.engine, self.sequence.camera.shape)

    @cached_property
    def judge(self) -> Judge:
        """Who judges all variants, made when the first one is done: by the recording as that one reads it."""
        first = RunFolder.open(self.folder(self.variants[0]))
        recording = judged_recording(first.open_sequence(), first.load_config(), first.load_progress())
        origin = origin_of(first.load_clouds()[0])
        return Judge(recording, self.settings.truth, self.network, depth_limits(self.base, recording), origin)

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
        out = str(self.folder(variant))
        make = ["semslam", "reconstruct", self.path, "--out", out, *variant.options()]
        make += self.settings.options(*MAKING)
        if self.base.bars and variant.depth == "sensor":
            make += ["--set", "bars=true"]
        return shlex.join(make), shlex.join(["semslam", "evaluate", out, *self.settings.options("truth")])

    @property
    def command(self) -> str:
        """What a person types for this comparison."""
        words = ["semslam", "compare", self.path, "--out", str(self.out)]
        if len(self.variants) + len(self.left_out) < len(variants_of(self.sequence)):
            words += ["--variants", ",".join(variant.name for variant in self.variants)]
        words += self.settings.options(*MAKING, "truth")
        return shlex.join(words)

    def prepared(self, variant: Variant) -> Run | None:
        """The variant's run, going on where it was interrupted; None if it is done already."""
        folder, config = RunFolder(self.folder(variant)), variant.settings(self.base)
        return None if is_done(folder, config) else prepared(folder, config, self.network)

    def leave_out(self, variant: Variant, reason: str) -> None:
        """Go on without a variant that cannot be made of this recording; the report says why."""
        self.variants.remove(variant)
        self.left_out[variant.what] = reason

    def evaluate(self, variant: Variant) -> None:
        """Judge a finished variant, and add it to the results."""
        self.results.append(self.judge(variant, RunFolder.open(self.folder(variant))))


def open_comparisons(
    paths: Sequence[str], out: Path, settings: Settings, variants: str | None = None, overwrite: bool = False
) -> list[Comparison]:
    """The comparisons of some sequences, nothing run yet: each in `out`, or in a folder of its name if they are many.

    variants: names with commas; None = every one that a sequence allows. overwrite: replace variants that were made
    with other settings or weights. What cannot be done is said now, in one line.
    """
    if settings.classes not in ("nyu13", "nyu40"):
        raise ValueError(f"--classes is {settings.classes!r}, expected nyu13 or nyu40")
    found: list[Comparison] = []
    base = settings_of(settings.config)
    settings = replace(settings, weights=settings.weights or base.weights, engine=settings.engine or base.engine)
    shared: dict[str, Any] = {
        "kind": settings.kind or base.kind,
        "weights": settings.weights,
        "engine": settings.engine,
    }
    shared |= {name: getattr(settings, name) for name in PART if getattr(settings, name) is not None}
    base = configs.updated(base, shared | {"slam.perception.classes": settings.classes}, "compare")
    for path in paths:
        config = replace(base, sequence=path)
        sequence = config.open_sequence()
        if config.bars is None and any(
            variant.depth == "predicted" for variant in chosen_variants(variants_of(sequence), variants)
        ):
            plain = replace(config, bars=True).open_sequence()
            if plain.camera.shape != sequence.camera.shape:  # all variants see the same
                config, sequence = replace(config, bars=True), plain
        if config.pose_convention is None:
            sequence = as_meant(sequence, path)
        chosen = chosen_variants(variants_of(sequence), variants)
        folder = out if len(paths) == 1 else out / f"{len(found) + 1}_{sequence.name}"
        found.append(Comparison(path, folder, settings, config, sequence, chosen))
    for comparison in found:
        check_apart(comparison.out, comparison.path)
        for variant in comparison.variants:
            check_free(
                RunFolder(comparison.folder(variant)), variant.settings(comparison.base), comparison.sequence, overwrite
            )
        RunFolder.create(comparison.out)  # find out now, not after the work, whether it can be written
    return found
