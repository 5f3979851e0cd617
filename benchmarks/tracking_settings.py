"""Settings of tracking, each judged on the recordings that it was not chosen on.

    python benchmarks/tracking_settings.py [--out settings.json] [--only NAME,...]

Every setting is made smaller and larger, one at a time, with images 320 wide. What that does to a recording is the
geometric mean, over its frames, every third of them, and every second with half of the depth gone, of errors relative
to today's settings: the ATE where the poses are exact, the self-consistency of depth where there are none, both where
they are recorded by another device; each percent of frames lost counts as 10 % more. For each recording, the setting
that is best on all the others is chosen, and what counts is what it does to the one left out. About ten minutes on an
idle machine; results are kept as they come, and what OUT has already is not made again.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numba
import numpy as np
from rgbd_systems import Result, settings_for, tracked_error, without_pose
from tracking import with_holes

from semslam.files.writing import replacing
from semslam.frame import Frame, Observation
from semslam.loops.loop_closure import LoopCloser
from semslam.metrics.trajectory import self_consistency
from semslam.perception import Perception, PerceptionConfig
from semslam.runs.config import settings_of
from semslam.slam import Slam, SlamConfig
from semslam.tracking.relocalisation.places import Places
from semslam.tracking.tracker import Tracker
from sequences import open_sequence

FACTORS = 0.7, 1.4
TODAY = "today's"
REGISTRATION, TRACKING, LOOPS = "slam.tracking.registration.", "slam.tracking.", "slam.loops."
VARIED: dict[str, tuple[str, ...]] = {  # name -> settings that are multiplied together
    "weight of colour": (REGISTRATION + "color_weight",),
    "motion prior": (REGISTRATION + "prior_translation", REGISTRATION + "prior_rotation"),
    "Tukey's width": (REGISTRATION + "tukey",),
    "Huber's width": (REGISTRATION + "huber",),
    "gate of normals": (REGISTRATION + "normal_gate_deg",),
    "least gradient": (REGISTRATION + "min_gradient",),
    "trusted confidence": (REGISTRATION + "trusted",),
    "border": (REGISTRATION + "border",),
    "degenerate share": (REGISTRATION + "degenerate",),
    "residual of a good frame": (TRACKING + "max_residual",),
    "fitting of a good frame": (TRACKING + "min_fitting",),
    "evidence of a lost frame": (TRACKING + "lost_evidence",),
    "way between keyframes": (TRACKING + "keyframe_distance", TRACKING + "keyframe_turn_deg"),
    "drift between keyframes": (LOOPS + "way_std", LOOPS + "way_floor"),
    "error of closures": (LOOPS + "closure_floor",),
}
WIDTH = 320  # pixels
SIZE = f"frames=180,width={WIDTH},height=240"
RECORDINGS: dict[str, Literal["exact", "recorded", "none"]] = {  # -> what its poses are worth
    "redkitchen": "recorded",
    "realsense_office": "recorded",
    "icl_livingroom1": "exact",
    "nyuv2_cafe": "none",
    f"room:{SIZE},noise=kinect": "exact",
    f"room:{SIZE},noise=realsense": "exact",
    f"room:{SIZE},noise=tof": "exact",
}
JUDGED_BY = {"exact": ("ate_m",), "recorded": ("ate_m", "own_m"), "none": ("own_m",)}
OWN_GAPS = 10, 35  # frames between which depth is compared
LARGEST = 4.0  # factor: nothing counts as more often better or worse than that
Figures = dict[str, dict[str, float]]  # of a recording and what was taken of it -> ate_m, own_m, lost


@dataclass(frozen=True, eq=False)
class Piece:
    """Frames of one recording, in one of three states."""

    recording: str
    what: str
    frames: Sequence[Frame]

    @property
    def name(self) -> str:
        return f"{self.recording}{self.what}"


def variants() -> dict[str, SlamConfig]:
    """All settings that are tried; the defaults first."""
    default = settings_of(None, {"sequence": "-"}).slam
    found = {TODAY: default}
    for name, paths in VARIED.items():
        for factor in FACTORS:
            values = {path: factor * _value(default, path) for path in paths}
            found[f"{name} x {factor:g}"] = settings_of(None, {"sequence": "-", **values}).slam
    registration = default.tracking.registration
    levels = registration.levels
    others = {
        "gates of pairs x 0.7": {"levels": tuple(replace(level, gate=0.7 * level.gate) for level in levels)},
        "gates of pairs x 1.4": {"levels": tuple(replace(level, gate=1.4 * level.gate) for level in levels)},
        "two levels instead of three": {"levels": levels[1:]},
        "no turning beforehand": {"rotation_iterations": 0},
    }
    for name, changes in others.items():
        changed = replace(registration, **changes)
        found[name] = replace(default, tracking=replace(default.tracking, registration=changed))
    found["noise as assumed"] = replace(default, tracking=replace(default.tracking, measure_noise=False))
    return found


def _value(config: SlamConfig, path: str) -> float:
    value: object = config
    for name in path.split(".")[1:]:
        value = getattr(value, name)
    assert isinstance(value, float)
    return value


def pieces(data: Path) -> list[Piece]:
    found = []
    for name in RECORDINGS:
        sequence = open_sequence(name if name.startswith("room") else data / name)
        perceive = Perception(PerceptionConfig(labels="none", width=WIDTH), sequence.camera, sequence.label_set)
        whole = [smaller(sequence[i], perceive) for i in range(min(len(sequence), 180))]
        if RECORDINGS[name] == "none":
            whole = [replace(frame, T_world_camera=np.eye(4)) for frame in whole]
        for what, frames in (
            ("", whole[:80]),
            (", every 3rd", whole[::3]),
            (", every 2nd with holes", [with_holes(frame) for frame in whole[60:140:2]]),
        ):
            found.append(Piece(name, what, [replace(frame, index=k) for k, frame in enumerate(frames)]))
    return found


def smaller(frame: Frame, perceive: Perception) -> Frame:
    """The frame in the size that is perceived."""
    seen = perceive(frame)
    return replace(frame, color=seen.color, depth=seen.depth.copy(), camera=seen.camera)


def made(config: SlamConfig, piece: Piece) -> dict[str, float]:
    """The figures of a piece under some settings."""
    frames = piece.frames
    tracker = Tracker(config.tracking, places=Places())
    loops = LoopCloser(tracker, config.loops)
    config = settings_for(frames, config)
    slam = Slam(frames[0].camera, config, perceive=Observation.of, track=tracker, loops=loops, places=tracker.places)
    T: list[np.ndarray] = []
    ok = []
    for i, frame in enumerate(frames):
        step = slam.step(frame if i == 0 else without_pose(frame))
        T.append(step.tracking.T_world_camera)
        ok.append(step.tracking.ok)
        if step.correction is not None:
            T = list(step.correction.corrected([f.index for f in frames[: i + 1]], np.stack(T)))
    result = Result("semslam", np.stack(T), np.array(ok), np.zeros(len(frames)))
    figures = {"ate_m": tracked_error(result, frames), "lost": float(np.mean(~result.ok))}
    if "own_m" in JUDGED_BY[RECORDINGS[piece.recording]]:
        kept = np.flatnonzero(result.ok)
        depths = [frames[k].depth for k in kept]
        own = [self_consistency(depths, frames[0].camera, result.T_world_camera[kept], gap) for gap in OWN_GAPS]
        figures["own_m"] = float(np.exp(np.nanmean(np.log(own))))
    return figures


def score(recording: str, figures: Figures, today: Figures) -> float:
    """Log of how much larger the errors of a recording are than with today's settings; below 0 is better."""
    scores = []
    for name, one in figures.items():
        if name.split(", every")[0] != recording:
            continue
        ratios = [math.log(one[kind] / today[name][kind]) for kind in JUDGED_BY[RECORDINGS[recording]]]
        limit = math.log(LARGEST)
        error = float(np.clip(np.nan_to_num(np.mean(ratios), nan=limit), -limit, limit))
        scores.append(error + 10 * (one["lost"] - today[name]["lost"]))
    return float(np.mean(scores))


def table(results: Mapping[str, Figures]) -> None:
    """Print what each setting does to each recording, and what choosing by the others gives."""
    today = results[TODAY]
    scores = {name: {r: score(r, figures, today) for r in RECORDINGS} for name, figures in results.items()}
    short = {r: r.replace(f"room:{SIZE},noise=", "room ") for r in RECORDINGS}
    print(f"{'errors against today, percent':32s} " + " ".join(f"{short[r]:>16s}" for r in RECORDINGS) + "     mean")
    order = sorted(scores, key=lambda name: float(np.mean(list(scores[name].values()))))
    for name in order:
        line = " ".join(f"{_percent(scores[name][r]):+15.1f} " for r in RECORDINGS)
        print(f"{name:32s} {line} {_percent(float(np.mean(list(scores[name].values())))):+7.1f}")
    print("\nleft out: the best on all the others, what it gains there, and on the one left out, percent")
    gains = []
    for left_out in RECORDINGS:
        others = {name: float(np.mean([s[r] for r in RECORDINGS if r != left_out])) for name, s in scores.items()}
        best = min(others, key=lambda name: others[name])
        gains.append(scores[best][left_out])
        print(f"{short[left_out]:18s} {best:32s} {_percent(others[best]):+6.1f} {_percent(gains[-1]):+6.1f}")
    print(f"{'mean':18s} {'':32s} {'':6s} {_percent(float(np.mean(gains))):+6.1f}")


def _percent(log_ratio: float) -> float:
    return 100 * math.expm1(log_ratio)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--out", type=Path, default=Path("settings.json"), help="where results are kept")
    parser.add_argument("--only", help="variants whose names begin so, separated by commas")
    arguments = parser.parse_args()
    numba.set_num_threads(min(2, numba.get_num_threads()))
    results: dict[str, Figures] = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}
    wanted = [name.strip() for name in arguments.only.split(",")] if arguments.only else [""]
    chosen = {n: c for n, c in variants().items() if n == TODAY or n.startswith(tuple(wanted))}
    loaded: list[Piece] = []
    for name, config in chosen.items():
        figures = results.setdefault(name, {})
        if name != TODAY and len(figures) == 3 * len(RECORDINGS):
            continue
        loaded = loaded or pieces(arguments.data)
        for piece in loaded:
            if piece.name not in figures:
                figures[piece.name] = made(config, piece)
                with replacing(arguments.out) as temporary:
                    temporary.write_text(json.dumps(results, indent=1))
        print(f"{name} is done", flush=True)
    table({name: figures for name, figures in results.items() if len(figures) == 3 * len(RECORDINGS)})


if __name__ == "__main__":
    main()
