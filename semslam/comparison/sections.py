"""What a comparison says: its tables, plots and sentences, every one made from figures that were measured."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semslam.comparison import pictures as draw
from semslam.comparison.answer import answer
from semslam.comparison.comparison import Comparison
from semslam.comparison.depth_section import depth
from semslam.comparison.depth_study import NETWORK, SCALED, SHIFTED
from semslam.comparison.judged import VariantResult
from semslam.comparison.labels_section import labels
from semslam.comparison.report import Commands, Picture, Section, Table, Text, number, write_html, write_markdown
from semslam.files.writing import write_json
from semslam.judging.figures import class_counts
from semslam.judging.run import over_scenes
from semslam.metrics.trajectory import absolute_error

CM = 100.0


def sections_of(comparisons: Sequence[Comparison]) -> list[Section]:
    """The whole report."""
    found: list[Section] = []
    for comparison in comparisons:
        prefix = f"{comparison.name}: " if len(comparisons) > 1 else ""
        for section in (answer, summary, maps, depth, trajectory, surface, labels, cost, commands):
            made = section(comparison)
            if made is not None:
                again = Commands(tuple(_again(comparison, section)))
                found.append(Section(prefix + made.title, made.parts + ([again] if again.lines else [])))
    if len(comparisons) > 1:
        found.append(pooled(comparisons))
    return found


def _again(c: Comparison, section: Any) -> list[str]:
    """What a person types to get a section's figures again."""
    folder = f"{shlex.quote(str(c.out))}/VARIANT"
    if section in (trajectory, surface, labels):
        options, names = " ".join(c.settings.options("truth")), ", ".join(r.variant.name for r in c.results)
        return [f"semslam evaluate {folder} {options}   # {names}"]
    if section is cost:
        return [f"semslam reconstruct ... --out {folder}   # metrics.json; options: the last section"]
    return [c.command] if section in (answer, summary, maps, depth) else []


def figures_of(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """report.json: every figure of every variant under the names of `semslam evaluate`, and how to get them again."""
    scenes = {}
    for k, c in enumerate(comparisons, 1):
        variants = {
            r.variant.name: {**r.figures, "what": r.variant.what, "commands": list(c.commands(r.variant))}
            for r in c.results
        }
        study = {name: source.figures() for name, source in c.judge.depth.sources.items()} if c.judge.depth else {}
        scene = f"{k}_{c.name}" if len(comparisons) > 1 else c.name  # many recordings are called seq-01
        scenes[scene] = {"sequence": c.path, "variants": variants, "depth": study}
    return {"scenes": scenes, "pooled": pooled_figures(comparisons) if len(comparisons) > 1 else {}}


def flat_figures(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """The numbers of report.json as one flat object: "predicted_all.fscore_5cm", with the scene before where many."""
    found: dict[str, Any] = {}
    for k, comparison in enumerate(comparisons, 1):
        scene = f"{k}_{comparison.name}." if len(comparisons) > 1 else ""
        for r in comparison.results:
            plain = {k: v for k, v in r.figures.items() if not isinstance(v, (dict, list))}
            found |= {f"{scene}{r.variant.name}.{name}": value for name, value in plain.items()}
    return found


# ------------------------------------------------------------------------------------------------- sections


def summary(c: Comparison) -> Section:
    parts: list[Any] = [Text(sentence) for sentence in _findings(c)]
    parts += [Text(f"Left out: {what}, because it could not be made. {why}") for what, why in c.left_out.items()]
    columns = ("variant", "surface error, mean cm", "median cm", "not found, mean cm", "F-score 5 cm %", "layered %",
               "mIoU-13 map %", "mIoU-13 single %", "ATE cm", "poses %", "surfels", "seconds")  # fmt: skip
    keys = (("accuracy_m", CM, 1), ("accuracy_median_m", CM, 1), ("completeness_m", CM, 1), ("fscore_5cm", 100, 1),
            ("layered", 100, 1), ("miou_13_map", 100, 1), ("miou_13_single", 100, 1), ("ate_m", CM, 2),
            ("coverage", 100, 1), ("surfels", 1, 0), ("seconds", 1, 1))  # fmt: skip
    note = (
        "Surface error: mean distance of the map to the truth; not found: mean distance of the truth to the map; "
        "layered: share of surfels with another one of the same normal 2 to 20 cm before or behind, "
        "both smoothed over 2 cm. "
        "ATE of given poses is 0 by construction. Lines that start with + have one correction more than the line above."
    )
    parts.append(Table("All variants", columns, tuple(r.row(keys) for r in c.results), note))
    if c.base.hold_out is not None:
        parts.append(_held_out(c.base.hold_out, c.results))
    return Section("What predicted depth costs", parts)


def _held_out(every: int, results: Sequence[VariantResult]) -> Table:
    """How well the maps predict the sensor's depth in frames that they were not made from."""
    columns = ("variant", "frames", "median error cm", "of their depth %")
    keys = (("frames_held_out", 1, 0), ("held_out_depth_median_m", CM, 2), ("held_out_coverage", 100, 1))
    note = (
        f"Every {every}th frame was not used; of its sensor's depth, the share that the map shows from there, and the "
        f"median error of what it shows."
    )
    return Table("Frames held out", columns, tuple(r.row(keys) for r in results), note)


def _filling(figures: dict[str, Any], hidden: float) -> str:
    """What filling the sensor's holes gave. hidden: median error of measured pixels that it did not see, metres."""
    said = (
        f"The sensor has no depth in {100 * figures['fill_holes_share']:.0f} % of the keyframes' pixels. Parallax and "
        f"the network add {figures['surfels_filled']} surfels there; pixels that were measured, and hidden from the "
        f"filling, come out {CM * hidden:.1f} cm off (median)"
    )
    if figures.get("completeness_m") is None or figures.get("completeness_unfilled_m") is None:
        return f"{said}."
    return (
        f"{said}. Mean distance of the truth to the map: {CM * figures['completeness_unfilled_m']:.1f} cm without "
        f"them, {CM * figures['completeness_m']:.1f} cm with them."
    )


def _findings(c: Comparison) -> list[str]:
    """The answer in sentences."""
    by_name = {r.variant.name: r.figures for r in c.results}

    def error(name: str) -> float | None:
        return by_name.get(name, {}).get("accuracy_m")

    sensor, raw, corrected = error("sensor"), error("predicted_raw"), error("predicted_all")
    found = [f"{c.name}: {len(c.sequence)} frames of {c.sequence.camera.width}x{c.sequence.camera.height} pixels."]
    if raw is not None and corrected is not None:
        found[0] += (
            f" Raw predicted depth makes a map with a mean surface error of {CM * raw:.1f} cm; with all corrections it "
            f"is {CM * corrected:.1f} cm, {raw / corrected:.1f} times less"
            if corrected < raw
            else " The corrections do not help here: mean surface error "
            f"{CM * raw:.1f} cm raw, {CM * corrected:.1f} cm with all"
        )
        found[0] += f"; sensor depth makes {CM * sensor:.1f} cm." if sensor is not None else "."
    if (hidden := by_name.get("sensor_filled", {}).get("fill_hidden_median_m")) is not None:
        found.append(_filling(by_name["sensor_filled"], hidden))
    study = c.judge.depth
    if study is not None and study.scales:
        limits = {name: study.sources[name].figures() for name in (NETWORK, SCALED, SHIFTED)}
        scales = np.array(list(study.scales.values()))
        sentence = (
            f"The network's own limit: its depth has an RMSE of {limits[NETWORK]['rmse']:.2f} m in single frames, "
            f"{limits[SCALED]['rmse']:.2f} m after the best scale of each frame and {limits[SHIFTED]['rmse']:.2f} m "
            f"after the best scale and shift. The best scale is {np.median(scales):.2f} in the median frame "
            f"({scales.min():.2f} to {scales.max():.2f}), where 1 would be right."
        )
        if "surface_m" in limits[SHIFTED]:
            sentence += (
                f" Single frames put back into the room with the data set's poses lie "
                f"{CM * limits[NETWORK]['surface_m']:.1f} cm from the true surface raw, "
                f"{CM * limits[SCALED]['surface_m']:.1f} cm with the best scale and "
                f"{CM * limits[SHIFTED]['surface_m']:.1f} cm with the best scale and shift; where a map is nearer than "
                f"that, it owes it to the agreement of views."
            )
        found.append(sentence)
    return found


def maps(c: Comparison) -> Section | None:
    shown = {r.variant.what: r.pictures for r in c.results if r.pictures}
    if not shown:
        return None
    error_note = "Distance of each surfel to the truth; one camera for all, chosen for the first map."
    pictures = [
        Picture("In their colours", tuple((what, draw.photograph(views[0])) for what, views in shown.items())),
    ]
    if c.judge.reference is not None:
        images = tuple((what, draw.photograph(views[2])) for what, views in shown.items())
        pictures += [
            Picture("Error painted on the maps", images, error_note),
            Picture("Scale of the errors", (("", draw.error_scale()),)),
        ]
    classes = tuple((what, draw.photograph(views[1])) for what, views in shown.items())
    pictures.append(Picture("In their classes", classes))
    return Section("The maps", list(pictures))


def trajectory(c: Comparison) -> Section | None:
    reference = c.judge.sequence.trajectory  # as the errors of the table are found
    if reference is None:
        return None
    keys = (("ate_m", CM, 2), ("ate_median_m", CM, 2), ("ate_max_m", CM, 2), ("ate_sim3_m", CM, 2),
            ("trajectory_scale", 1, 3), ("rpe_m", 1000, 1), ("rpe_deg", 1, 2), ("drift_per_metre", 100, 1),
            ("coverage", 100, 1))  # fmt: skip
    columns = ("variant", "ATE cm, SE(3)", "median", "max", "ATE cm, Sim(3)", "true / estimated scale",
               "RPE mm a frame", "RPE deg per frame", "drift cm over 1 m", "frames with a pose %")  # fmt: skip
    tracked = [r for r in c.results if r.variant.poses != "dataset"]
    if not tracked:
        return Section("Trajectory", [Text("Every variant took the data set's poses; there is nothing to compare.")])
    found = {}
    for r in tracked:
        if r.evaluation.trajectory is None:
            continue
        error = absolute_error(r.estimate.selected(r.tracked), reference)
        seconds = error.timestamps - reference.timestamps[0]
        found[r.variant.what] = (error.alignment(r.estimate.positions), r.tracked, seconds, error.errors)
    protocol = next((str(r.figures["trajectory_protocol"]) for r in tracked if "trajectory_protocol" in r.figures), "")
    note = (
        f"TUM protocol: {protocol}. Depth that is wrong in scale makes poses that are. Variants with given poses are "
        f"left out: their error is 0 by construction."
    )
    parts: list[Any] = [Table("Errors of the tracked poses", columns, tuple(r.row(keys) for r in tracked), note)]
    if found:
        picture = draw.paths(reference.positions, found)
        caption = "Aligned by rigid motions; crosses: lost."
        parts.append(Picture("Together", (("", picture),), caption))
    return Section("Trajectory", parts)


def surface(c: Comparison) -> Section | None:
    if c.judge.reference is None:
        return None
    keys = [("accuracy_m", CM, 2), ("accuracy_median_m", CM, 2), ("completeness_m", CM, 2),
            ("completeness_median_m", CM, 2)]  # fmt: skip
    keys += [(f"{name}_{t}cm", 100, 1) for t in (2, 5, 10) for name in ("precision", "recall", "fscore")]
    columns = ["variant", "accuracy cm", "median", "completeness cm", "median"]
    columns += [f"{name} {t} cm %" for t in (2, 5, 10) for name in ("precision", "recall", "F")]
    rule = (
        "Accuracy: mean distance of the map to the truth; completeness: of the truth to the map; both after one "
        "point a 2 cm voxel. Visible-region rule: a point counts if a view shows the truth there between the near "
        f"and the far limit. The truth: {c.judge.reference.protocol}. "
        "Maps of tracked poses were moved rigidly onto the data set's world."
    )
    parts: list[Any] = [Table("Surface", tuple(columns), tuple(r.row(keys) for r in c.results), rule)]
    inturn = [r for r in c.results if r.variant.depth == "predicted" and r.variant.poses == "dataset"
              and r.variant.labels == "predicted"]  # fmt: skip
    if len(inturn) > 2:
        names = [r.variant.what.replace("predicted depth, ", "") for r in inturn]
        error = {
            "map to truth": [_centimetres(r.figures["accuracy_m"]) for r in inturn],
            "truth to map": [_centimetres(r.figures["completeness_m"]) for r in inturn],
        }
        parts.append(Picture("One correction after the other", (("", draw.bars(names, error, "mean distance, cm")),)))
    return Section("Surface", parts)


def _centimetres(metres: float | None) -> float:
    """NaN where there is no figure."""
    return np.nan if metres is None else CM * metres


def cost(c: Comparison) -> Section:
    stages = sorted({stage for r in c.results for stage in r.figures["stages_ms"]}, key=_stage_order)
    columns = ("variant", *(f"{s} ms" for s in stages), "frames/s", "seconds", "peak memory MB", "surfels",
               "bytes per surfel", "map.ply MB", "map.npz MB")  # fmt: skip
    rows = []
    for r in c.results:
        f = r.figures
        medians = (number(f["stages_ms"].get(s, {}).get("median"), 1) for s in stages)
        others = (("frames_per_second", 1, 1), ("seconds", 1, 1), ("peak_memory_bytes", 1e-6, 0), ("surfels", 1, 0),
                  ("bytes_per_surfel", 1, 0), ("map_bytes", 1e-6, 1), ("state_bytes", 1e-6, 1))  # fmt: skip
        rows.append((r.variant.what, *medians, *(number(f.get(k), d, factor) for k, factor, d in others)))
    versions: dict[str, str] = next((r.figures["versions"] for r in c.results), {})
    engines = sorted({str(r.figures["engine"]) for r in c.results if r.figures.get("engine")})
    note = (
        "Medians of the frames that went through a stage; peak memory is that of the whole process, network included. "
        f"Made with {', '.join(f'{k} {v}' for k, v in versions.items())}; "
        f"engine {', '.join(engines) or '-'}."
    )
    return Section("Cost", [Table("Time, memory, size", columns, tuple(rows), note)])


def commands(c: Comparison) -> Section:
    parts: list[Any] = [
        Text(
            "Each variant's map, trajectory, cost, surface and label figures come again from its two commands: the "
            "first makes the run, the second judges it and writes metrics.json in its folder. The depth section, the "
            "plots and the pictures come from `semslam compare` itself, which does not do again what is done."
        )
    ]
    for r in c.results:
        parts += [Text(f"{r.variant.what} ({r.variant.name})"), Commands(c.commands(r.variant))]
    return Section("Every figure again", parts)


def pooled(comparisons: Sequence[Comparison]) -> Section:
    """All scenes as one: means of the scenes' figures, and label figures of all pixels in one matrix."""
    figures = pooled_figures(comparisons)
    counts = class_counts(name for f in figures.values() for name in f)
    keys = (("accuracy_m", CM, 1), ("completeness_m", CM, 1), ("fscore_5cm", 100, 1), ("ate_m", CM, 2),
            *((f"miou_{n}_{k}{p}", 100, 1) for n in counts for k in ("single", "map", "surfels")
              for p in ("", "_pooled")))  # fmt: skip
    columns = ("variant", "accuracy cm", "completeness cm", "F 5 cm %", "ATE cm", *(
        f"mIoU-{n} {k} {p}" for n in counts for k in ("single", "map", "surfels") for p in ("mean", "pooled")
    ))  # fmt: skip
    rows = tuple((name, *(number(f.get(k), d, x) for k, x, d in keys)) for name, f in figures.items())
    note = "Mean: of the scenes' own figures; pooled: of one confusion matrix over the pixels of all scenes."
    names = ", ".join(c.name for c in comparisons)
    return Section("All scenes", [Table(f"{len(comparisons)} scenes: {names}", columns, rows, note)])


def pooled_figures(comparisons: Sequence[Comparison]) -> dict[str, dict[str, Any]]:
    """By the name of each variant that every scene has."""
    common = [r.variant.name for r in comparisons[0].results]
    common = [n for n in common if all(n in [r.variant.name for r in c.results] for c in comparisons)]
    return {
        name: over_scenes({c.path: r.evaluation for c in comparisons for r in c.results if r.variant.name == name})
        for name in common
    }


def _stage_order(stage: str) -> int:
    known = ("perceive", "correct", "filter", "track", "fuse", "labels", "loops")
    return known.index(stage) if stage in known else len(known)


def write(out: Path, comparisons: Sequence[Comparison]) -> list[Path]:
    """report.html, report.md and report.json in a folder; their paths."""
    sections = sections_of(comparisons)
    title = "Sensor depth against predicted depth: " + ", ".join(c.name for c in comparisons)
    page, text, figures = (out / f"report.{suffix}" for suffix in ("html", "md", "json"))
    write_html(page, title, sections)
    write_markdown(text, title, sections)
    write_json(figures, figures_of(comparisons))
    return [page, text, figures]
