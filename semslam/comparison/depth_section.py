"""What a comparison says of depth in single frames, and of maps rendered back into them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np

from semslam.comparison import pictures as draw
from semslam.comparison.comparison import Comparison
from semslam.comparison.depth_study import (
    DISTANCES,
    EDGE_STEP,
    EDGE_WIDTH,
    NETWORK,
    SHIFTED,
    DepthStudy,
    rendered_depth,
)
from semslam.comparison.report import Picture, Section, Table, Text, number
from semslam.labels import LABEL_SETS
from semslam.metrics.depth import FIGURES, PROTOCOLS


def depth(c: Comparison) -> Section | None:
    study = c.judge.depth
    if study is None or not study.sources[NETWORK].frames:
        return None
    named = c.map_titles()
    figures = {named.get(name, name): source.figures() for name, source in study.sources.items()}
    parts: list[Any] = [
        Text(
            f"{len(study.sources[NETWORK].frames)} frames, evenly spread over those with labels if there are any, "
            "against the sensor's depth at its own size. "
            "The network's rows are of single frames; a map's are of the map rendered back into them, where the true "
            "depth is in the map's range and the map shows something: the share of such pixels is given."
        )
    ]
    parts += _metrics(figures)
    shown = {n: named.get(n, n) for n in (NETWORK, SHIFTED, *c.main()) if n in study.sources}
    per_frame = {
        title: (
            np.array(sorted(study.sources[name].frames)),
            np.array([study.sources[name].frames[i].rmse for i in sorted(study.sources[name].frames)]),
        )
        for name, title in shown.items()
    }
    parts.append(Picture("Frame by frame", (("", draw.lines(per_frame, "frame", "RMSE, m")),)))
    parts += _by_distance_and_class(study, shown)
    parts.append(_near_edges(study, shown))
    parts += _frames_shown(c, study)
    return Section("Depth, frame by frame", parts)


def _metrics(figures: dict[str, dict[str, float]]) -> Iterable[Table]:
    rows = tuple(
        (name, number(f["shown"], 1, 100), *(number(f[key], 3) for key in FIGURES)) for name, f in figures.items()
    )
    note = "RMSE, sqr rel in metres, SILog times 100; pooled over valid pixels, whole frame, no cap: `semslam score`'s."
    yield Table("All depth metrics", ("depth", "pixels %", *FIGURES), rows, note)
    rows = tuple(
        (f"{name}: {protocol.name}, {pooling}", *(number(figures[name][key + suffix + end], 3) for key in FIGURES))
        for name in (NETWORK, SHIFTED)
        for suffix, protocol in PROTOCOLS.items()
        for end, pooling in (("", "pooled"), ("_mean_of_images", "mean of images"))
    )
    yield Table("The network under every protocol", ("depth", *FIGURES), rows)


def _by_distance_and_class(study: DepthStudy, shown: dict[str, str]) -> Iterable[Picture]:
    """shown: the names of sources, and what the report calls them."""
    bins = [f"{a:g}-{b:g}" if np.isfinite(b) else f"over {a:g}" for a, b in pairwise(DISTANCES)]
    seen = [k for k, e in enumerate(study.sources[NETWORK].distances) if e.pooled().pixels > 500]
    by_distance = {
        title: [study.sources[n].distances[k].pooled().abs_rel * 100 for k in seen] for n, title in shown.items()
    }
    drawn = draw.bars([bins[k] for k in seen], by_distance, "mean |error| / truth, %")
    yield Picture("By true distance, metres", (("", drawn),))
    classes = LABEL_SETS["nyu13"].classes
    seen = [k for k, e in enumerate(study.sources[NETWORK].classes) if e.pooled().pixels > 500]
    by_class = {title: [study.sources[n].classes[k].pooled().abs_rel * 100 for k in seen] for n, title in shown.items()}
    whose = "true" if study.by_true_classes else "predicted"
    names = [classes[k] for k in seen]
    yield Picture(f"By {whose} class", (("", draw.bars(names, by_class, "mean |error| / truth, %")),))


def _near_edges(study: DepthStudy, shown: dict[str, str]) -> Table:
    rows = tuple(
        (title, *(number(study.sources[n].figures()[k], 3) for k in
         ("rmse_near_edges", "rmse_elsewhere", "abs_rel_near_edges", "abs_rel_elsewhere")))
        for n, title in shown.items()
    )  # fmt: skip
    note = (
        f"Near: within {EDGE_WIDTH} pixels (at 640 columns) of a jump of the true depth by over {100 * EDGE_STEP:g} %."
    )
    columns = ("depth", "RMSE m near", "elsewhere", "abs rel near", "elsewhere")
    return Table("Near depth edges and elsewhere", columns, rows, note)


def _frames_shown(c: Comparison, study: DepthStudy) -> Iterable[Picture]:
    maps_shown = []
    for result in c.results:
        if result.variant.name in ("predicted_raw", "predicted_all"):
            maps_shown.append((result, result.folder.load_cloud()[0]))
    for which, index in zip(("median", "worst"), study.median_and_worst()):
        found = study.frame(index, c.network)
        if found is None:
            continue
        frame, predicted = found
        depths = {"network": predicted, "best scale": (study.scales[index] * predicted).astype(np.float32)}
        timestamp = float(c.sequence.timestamps[index])
        for result, cloud in maps_shown:
            T = result.estimate.at(timestamp)
            if T is not None:
                name = "map, raw" if result.variant.corrections == "none" else "map, all corrections"
                depths[name] = rendered_depth(cloud, frame.camera, T)
        title = f"The {which} frame: {c.sequence.number_of(index)}"
        yield Picture(title, (("", draw.depth_frame(frame.color, frame.truth, depths)),))
