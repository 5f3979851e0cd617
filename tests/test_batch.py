"""Many sequences by one command: what is done stays done, what fails stops nothing else."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from typer.testing import CliRunner

from semslam.cli import app
from semslam.runs.batch import run_tasks, tasks_of


def listing(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_command_gets_its_sequence_and_its_folder(tmp_path):
    file = listing(tmp_path / "list.txt", "# two of one name", "a/room", "b/room  # again", "", "room:frames=3")
    tasks = tasks_of(file, "reconstruct --poses tracked", tmp_path / "out")
    assert [task.name for task in tasks] == ["room", "room-2", "room_frames_3"]
    assert tasks[1].words == ("reconstruct", "b/room", "--poses", "tracked", "--out", str(tmp_path / "out" / "room-2"))
    (task,) = tasks_of(listing(tmp_path / "one.txt", "x y"), "convert {sequence} {out}.klg", tmp_path)
    assert task.words == ("convert", "x y", f"{tmp_path / 'x_y'}.klg")


@pytest.mark.parametrize(
    ("lines", "command", "message"),
    [(("a",), "format -c", "--command is 'format -c'"), (("# none",), "doctor", "lists no sequences")],
)
def test_what_cannot_be_run_is_one_line(tmp_path, lines, command, message):
    with pytest.raises(ValueError, match=message):
        tasks_of(listing(tmp_path / "list.txt", *lines), command, tmp_path)


@pytest.mark.slow
def test_one_failure_stops_nothing_and_done_tasks_are_not_repeated(tmp_path):
    out, small = tmp_path / "out", "room:frames=2,width=64,height=48"
    file = listing(tmp_path / "list.txt", small, "nowhere", small)
    words = ["batch", str(file), "--out", str(out), "--command", "reconstruct --labels none --no-mesh"]
    first = CliRunner().invoke(app, words)
    assert first.exit_code == 1 and "2 of 3 done, 0 of them before" in first.output
    rows = list(csv.DictReader((out / "summary.csv").open()))
    assert [row["ok"] for row in rows] == ["True", "False", "True"] and rows[0]["frames_fused"] == "2"
    assert rows[1]["attempts"] == "2" and "nowhere: no such sequence" in rows[1]["message"]
    maps = [path.stat().st_mtime_ns for path in sorted(out.glob("*/map.ply"))]
    assert len(maps) == 2
    again = CliRunner().invoke(app, words)
    assert "2 of 3 done, 2 of them before" in again.output
    assert [path.stat().st_mtime_ns for path in sorted(out.glob("*/map.ply"))] == maps


@pytest.mark.slow
def test_another_command_is_another_task(tmp_path):
    file = listing(tmp_path / "list.txt", "room:frames=2,width=64,height=48")
    for command, fresh in (("doctor", True), ("doctor", False), ("doctor --depth-scale 1000", True)):
        (outcome,) = run_tasks(tasks_of(file, command, tmp_path), tmp_path, retries=0)
        assert outcome.fresh == fresh
    assert not outcome.ok and "the room has no depth_scale" in outcome.message
