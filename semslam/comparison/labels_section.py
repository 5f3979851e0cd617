"""What a comparison says of classes: single frames, maps rendered back, surfels; confusions and calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from semslam.comparison import pictures as draw
from semslam.comparison.comparison import Comparison
from semslam.comparison.judged import VariantResult
from semslam.comparison.report import Picture, Section, Table, number
from semslam.labels import LABEL_SETS


def labels(c: Comparison) -> Section | None:
    scored = [r for r in c.results if r.evaluation.labels]
    if not scored:
        return None
    parts: list[Any] = []
    for count in (13, 40):
        rows = [r for r in scored if count in r.evaluation.labels]
        if not rows:
            continue
        kinds = ("single", "map", "single_covered", "map_covered", "surfels")
        keys = [(f"{f}_{count}_{k}", 100, 1) for f in ("miou", "pixel_accuracy", "class_accuracy") for k in
                (kinds if f == "miou" else ("single", "map", "surfels"))]  # fmt: skip
        keys += [(f"ece_{count}_{k}", 100, 1) for k in ("single", "map")]
        keys.insert(0, ("frames_labelled", 1, 0))
        columns = ["variant", "frames", *(f"mIoU {k.replace('_', ', ')}" for k in kinds)]
        columns += [f"{f} {k}" for f in ("pixel acc.", "class acc.") for k in ("single", "map", "surfels")]
        columns += ["ECE single", "ECE map"]
        note = (
            f"Per cent. Frames: whose labels were fused. Single: the network on the frame alone; map: the map rendered "
            f"back into it; covered: both where the map shows a labelled surfel; surfels: in 3-D, each against the "
            f"majority of the frames that see it. Protocol: {rows[0].evaluation.labels[count].protocol}, the same ones "
            f"for all maps; absent classes skipped; one scene, so that pooled and per-scene figures are the same."
        )
        parts.append(Table(f"{count} classes", tuple(columns), tuple(r.row(keys) for r in rows), note))
        parts += _by_class(c, rows, count)
    return Section("Labels", parts)


def _by_class(c: Comparison, results: Sequence[VariantResult], count: int) -> list[Any]:
    names = LABEL_SETS[f"nyu{count}"]
    main = [r for r in results if r.variant.name in c.main()] or list(results[:1])
    columns, values = ["class"], []
    for r in main:
        for kind in ("single", "map", "surfels"):
            matrix = getattr(r.evaluation.labels[count], kind)
            if matrix.counts.sum():
                columns.append(f"{kind}, {r.variant.what}")
                values.append(matrix.scores().iou)
    seen = [k for k in range(count) if any(np.isfinite(v[k]) for v in values)]
    rows = tuple((names.classes[k], *(number(v[k], 1, 100) for v in values)) for k in seen)
    parts: list[Any] = [Table(f"IoU of each of the {count} classes, %", tuple(columns), rows)]
    matrices = {f"map, {r.variant.what}": r.evaluation.labels[count].map for r in main[:2]}
    parts.append(Picture(f"Confusions, {count} classes", (("", draw.confusion(matrices, names)),)))
    curves = {}
    for r in main:
        for kind in ("single", "map"):
            scores = getattr(r.evaluation.labels[count], f"{kind}_calibration").scores()
            name = kind if kind == "single" else f"map, {r.variant.what}"
            if scores.pixels.sum() and name not in curves:
                curves[name] = scores
    if curves:
        note = "15 equal bins of the largest probability, pooled over labelled pixels."
        parts.append(Picture(f"Reliability, {count} classes", (("", draw.reliability(curves)),), note))
    return parts
