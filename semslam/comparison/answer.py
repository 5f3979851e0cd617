"""The first screen of a comparison: what it costs to have no depth camera, in four numbers and two pictures."""

from __future__ import annotations

from typing import Any, NamedTuple

from semslam.comparison import pictures as draw
from semslam.comparison.comparison import Comparison
from semslam.comparison.judged import VariantResult
from semslam.comparison.report import Picture, Section, Table, Text, number

SENSOR, GIVEN = ("sensor",), "predicted_all"  # names of variants
# Without a depth camera, from most to least of what a plain camera gives by itself.
ALONE = ("predicted_all_tracked", GIVEN)


class Price(NamedTuple):
    """One of the numbers."""

    name: str  # with its unit
    key: str  # of the figures
    factor: float  # from the figure's unit to that of the name
    decimals: int


PRICES = (
    Price("the map's mean distance to the truth, cm", "accuracy_m", 100, 1),
    Price("surfaces right and found to 5 cm (F-score), %", "fscore_5cm", 100, 1),
    Price("error of lengths (scale of the trajectory), %", "scale_error", 100, 1),
    Price("classes of the surfels right (mIoU-13), %", "miou_13_surfels", 100, 1),
)


def answer(c: Comparison) -> Section | None:
    """The section; None where the comparison lacks a map of the sensor's depth, or one from colour alone."""
    sensor, alone = _first(c, SENSOR), _first(c, ALONE)
    if sensor is None or alone is None:
        return None
    tracked, given = alone.variant.poses != "dataset", _first(c, (GIVEN,))
    given = None if given is None or given.variant.poses != "dataset" else given  # of a recording without poses
    shown = [("depth camera", sensor)] + [("plain camera alone", alone)] * tracked
    if given is not None:
        shown.append(("plain camera, given poses", given))
    figures = {name: _with_scale_error(result) for name, result in shown}
    rows = tuple((p.name, *(number(f.get(p.key), p.decimals, p.factor) for f in figures.values())) for p in PRICES)
    rate = ", ".join(f"{name} {number(f.get('frames_per_second'))}" for name, f in figures.items())
    note = f"Frames a second, whole runs: {rate}."
    if tracked:
        note += (
            " Alone a plain camera tracks itself and measures depth by parallax; its lengths are the network's guess."
        )
    if given is not None:
        note += " Lengths of given poses are right by construction."
    parts: list[Any] = [Text(_sentence(figures)), Table("Four numbers", ("", *figures), rows, note)]
    views = tuple((name, draw.photograph(r.pictures[0])) for name, r in shown[:2] if r.pictures)
    if len(views) == 2:
        parts.append(Picture("The map of either, from one place", views))
    return Section("What does it cost to have no depth camera?", parts)


def _first(c: Comparison, names: tuple[str, ...]) -> VariantResult | None:
    by_name = {r.variant.name: r for r in c.results}
    return next((by_name[name] for name in names if name in by_name), None)


def _with_scale_error(result: VariantResult) -> dict[str, Any]:
    """The figures, with by how much the trajectory's lengths are wrong, whether too long or too short."""
    wrong = result.figures.get("scale_error")
    return result.figures | {"scale_error": None if wrong is None else abs(wrong)}


def _sentence(figures: dict[str, dict[str, Any]]) -> str:
    """The answer in a sentence."""
    (_, sensor), (name, alone) = list(figures.items())[:2]
    near, far = sensor.get("accuracy_m"), alone.get("accuracy_m")
    if near is None or far is None:
        return f"There is no true surface of this recording; the pictures show what a {name} makes of it."
    return (
        f"With a depth camera the map lies {100 * near:.1f} cm from the true surfaces on average, with a {name} "
        f"{100 * far:.1f} cm."
    )
