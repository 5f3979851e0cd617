"""What came of a batch: a table, as CSV and as a page."""

from __future__ import annotations

import csv
import io
import re
import tempfile
from pathlib import Path

from semslam.batch.results import Results
from semslam.batch.work import Outcome
from semslam.comparison.report import Picture, Section, Table, Text, write_html

# on the page, where tasks have them, with the mIoU of maps and networks; all others are in the CSV
ON_THE_PAGE = (
    *("frames", "frames_fused", "frames_lost", "surfels", "frames_per_second", "ate_m", "fscore_5cm"),
    *("rmse", "images"),
)
MIOU = re.compile(r"miou_\d+(_map)?")


def write_summary(outcomes: list[Outcome], results: Results) -> None:
    """Write summary.csv, with every figure, and summary.html, with the main ones and the pictures of the maps."""
    names = list(dict.fromkeys(name for outcome in outcomes for name in outcome.figures))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "input", "ok", "attempts", "task_seconds", *names, "message"])
    for outcome in outcomes:
        figures = [outcome.figures.get(name, "") for name in names]
        row = [outcome.name, outcome.input, outcome.ok, outcome.attempts, outcome.seconds]
        writer.writerow([*row, *figures, outcome.message])
    results.write("summary.csv", text.getvalue())
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "summary.html"
        write_html(page, "Batch", _sections(outcomes, results))
        results.write("summary.html", page.read_text(encoding="utf-8"))


def _sections(outcomes: list[Outcome], results: Results) -> list[Section]:
    done = [outcome for outcome in outcomes if outcome.ok]
    failed = [outcome for outcome in outcomes if not outcome.ok]
    names = list(dict.fromkeys(name for outcome in outcomes for name in outcome.figures))
    shown = [name for name in ON_THE_PAGE if name in names] + [name for name in names if MIOU.fullmatch(name)]
    rows = tuple(
        (
            *(outcome.name, f"{outcome.seconds:.1f}", str(outcome.attempts)),
            *(f"{outcome.figures[name]:.6g}" if name in outcome.figures else "–" for name in shown),
        )
        for outcome in done
    )
    columns = ("task", "seconds", "attempts", *(name.replace("_", " ") for name in shown))
    sections = [
        Section(
            "Tasks",
            [
                Text(f"{len(done)} of {len(outcomes)} done, {len(failed)} failed. All figures are in summary.csv."),
                Table("Done", columns, rows, "Each task's results and log lie under its name."),
            ],
        )
    ]
    if failed:
        whys = tuple((outcome.name, str(outcome.attempts), outcome.message) for outcome in failed)
        sections.append(Section("Failed", [Table("Why", ("task", "attempts", "last line of tasks/NAME.log"), whys)]))
    previews = tuple(
        (outcome.name, f"{outcome.name}/preview.png") for outcome in done if results.has(f"{outcome.name}/preview.png")
    )
    if previews:
        sections.append(Section("Maps", [Picture("Previews", previews)]))
    return sections
