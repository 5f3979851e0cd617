"""Many sequences by one command: what is done stays done, what fails stops nothing else."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from semslam import cli
from semslam.batch import work
from semslam.batch.engines import ENGINES
from semslam.batch.results import Results
from semslam.batch.summary import write_summary
from semslam.batch.tasks import Command, Task, tasks_of
from semslam.batch.work import Outcome, Work, undone
from semslam.cli import app
from semslam.commands.mapping.batch import _commands

never = bool  # interrupted
MAPPING = Command(takes=True, needs_out=True, writes_json=False)
KNOWN = {
    "reconstruct": MAPPING,
    "predict": MAPPING,
    "doctor": Command(takes=True, needs_out=False, writes_json=False),
    "score": Command(takes=False, needs_out=False, writes_json=True),
}


def listing(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_command_gets_its_sequence_and_its_folder(tmp_path):
    file = listing(
        tmp_path / "list.txt", "# two of one name", "a/room", "b/room  # again", "", "room:frames=3", "scan#1"
    )
    tasks = tasks_of(file, "reconstruct --poses tracked", KNOWN)
    assert [task.name for task in tasks] == ["room", "room-2", "room_frames_3", "scan_1"]
    words = tasks[1].words_for(tmp_path / "out" / "room-2")
    assert words == ["reconstruct", "b/room", "--poses", "tracked", "--out", str(tmp_path / "out" / "room-2")]
    assert [task.lines for task in tasks] == [("a/room",), ("b/room",), ("room:frames=3",), ("scan#1",)]
    (task,) = tasks_of(listing(tmp_path / "one.txt", "x y"), "doctor --camera {name}.yaml {sequence}", KNOWN)
    assert task.words == ("doctor", "--camera", "x_y.yaml", "x y")
    (task,) = tasks_of(tmp_path / "one.txt", "score --data {sequence}/images", KNOWN)
    assert task.words == ("score", "--data", "x y/images", "--json", "{out}.json")


def test_a_place_that_a_command_names_is_not_named_again(tmp_path):
    file = listing(tmp_path / "list.txt", "room")
    (task,) = tasks_of(file, "reconstruct {sequence} --out=mine/{name}", KNOWN)
    assert task.words == ("reconstruct", "room", "--out=mine/room")


def test_a_task_takes_as_many_lines_as_asked_for(tmp_path):
    file = listing(tmp_path / "list.txt", "a/1.png", "a/2.png", "b/1.png")
    tasks = tasks_of(file, "predict --classes nyu13", KNOWN, group=2)
    assert [task.words[1:3] for task in tasks] == [("a/1.png", "a/2.png"), ("b/1.png", "--classes")]
    assert [task.name for task in tasks] == ["1.png", "1.png-2"]


def test_no_two_tasks_share_a_name_and_none_has_that_of_the_records(tmp_path):
    file = listing(tmp_path / "list.txt", "x/a", "y/a", "a-2", "tasks", "a-2")
    assert [task.name for task in tasks_of(file, "doctor", KNOWN)] == ["a", "a-2", "a-2-2", "tasks-2", "a-2-3"]


def test_no_line_is_lost_where_a_command_has_room_for_one(tmp_path):
    file = listing(tmp_path / "list.txt", "a", "b")
    for command in ("score --data {sequence}/images", "doctor {name}"):
        with pytest.raises(ValueError, match=r"--group is 2, but .* takes one line"):
            tasks_of(file, command, KNOWN, group=2)


@pytest.mark.parametrize(
    ("lines", "command", "message"),
    [
        (("a",), "format -c", "--command is 'format -c'"),
        (("# none",), "doctor", "lists nothing"),
        (("a",), "score --split val", "write {sequence}"),
        (("a",), "doctor 'x", "--command is .*: No closing quotation"),
    ],
)
def test_what_cannot_be_run_is_one_line(tmp_path, lines, command, message):
    with pytest.raises(ValueError, match=message):
        tasks_of(listing(tmp_path / "list.txt", *lines), command, KNOWN)


def test_every_command_is_known_by_what_it_takes():
    known = _commands()
    assert {"reconstruct", "label", "score", "compare", "evaluate", "predict", "convert"} <= set(known)
    assert known["label"] == MAPPING and known["evaluate"] == Command(True, False, True)
    assert not known["score"].takes and "batch" not in known


@pytest.fixture
def python_tasks(monkeypatch, tmp_path):
    """Tasks whose command is a few lines of Python, in place of `semslam`."""
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "fake_child.py").write_text("import sys; exec(sys.argv[1])")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"), prepend=os.pathsep)
    monkeypatch.setattr(work, "CHILD", "fake_child")
    return lambda **codes: [Task(name, (name,), (code, "{out}")) for name, code in codes.items()]


WRITE = "import pathlib; p = pathlib.Path(sys.argv[2]); p.mkdir(); (p / 'metrics.json').write_text('{\"frames\": 3}')"
ONCE = f"import os; {WRITE}; os._exit(1)"  # fails, and succeeds where the folder is there already


@pytest.mark.parametrize("address", ["{}/out", "file://{}/out"])
def test_results_lie_in_any_place_and_done_tasks_are_not_repeated(tmp_path, python_tasks, address):
    place = address.format(tmp_path)
    tasks = python_tasks(good=WRITE, bad="sys.exit('no such recording')", killed="import os; os.kill(os.getpid(), 9)")
    job = Work(Results.at(place), retries=1, cwd=str(tmp_path))
    outcomes = {outcome.name: outcome for outcome in ENGINES["local"](tasks, job, 2, never)}
    assert outcomes["good"].ok and outcomes["good"].figures == {"frames": 3} and outcomes["good"].attempts == 1
    assert (outcomes["bad"].message, outcomes["bad"].attempts) == ("no such recording", 2)
    assert outcomes["killed"].message == "ended by signal 9"
    assert (tmp_path / "out" / "good" / "metrics.json").is_file()
    assert "no such recording" in (tmp_path / "out" / "tasks" / "bad.log").read_text()
    waiting, before = undone(tasks, job)
    assert [task.name for task in waiting] == ["bad", "killed"] and [done.name for done in before] == ["good"]
    (tmp_path / "out" / "good" / "metrics.json").unlink()
    (tmp_path / "out" / "good").rmdir()
    assert len(undone(tasks, job)[0]) == 3, "a task whose results were removed is done again"


def test_a_task_whose_file_was_removed_is_done_again(tmp_path, python_tasks):
    tasks = [Task("a", ("a",), ("import pathlib; pathlib.Path(sys.argv[2]).touch()", "{out}.json"))]
    job = Work(Results.at(str(tmp_path)), retries=0, cwd=str(tmp_path))
    assert all(outcome.ok for outcome in ENGINES["local"](tasks, job, 1, never))
    assert undone(tasks, job)[0] == []
    (tmp_path / "a.json").unlink()
    assert undone(tasks, job)[0] == tasks


def test_figures_that_another_command_left_are_not_a_tasks_own(tmp_path, python_tasks):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "good.json").write_text('{"frames": 99}')
    job = Work(Results.at(str(tmp_path / "out")), retries=1, cwd=str(tmp_path))
    assert job(*python_tasks(good=WRITE), 1).figures == {"frames": 3}


def test_wrong_input_is_not_tried_again(tmp_path, python_tasks):
    job = Work(Results.at(str(tmp_path / "out")), retries=3, cwd=str(tmp_path))
    outcome = job(python_tasks(bad="print('no such option'); sys.exit(2)")[0], threads=1)
    assert (outcome.ok, outcome.attempts, outcome.message) == (False, 1, "no such option")


def test_what_the_machine_lacked_is_tried_again(tmp_path, python_tasks):
    """No memory, a full disk and a lost connection have an exit code of their own."""
    assert cli.MACHINE_FAILED != work.WRONG_USE == cli.WRONG_USE
    at_first = (
        f"import pathlib; p = pathlib.Path(sys.argv[2]); p.exists() or p.mkdir() or sys.exit({cli.MACHINE_FAILED})"
    )
    (task,) = python_tasks(full=at_first)
    outcome = Work(Results.at(str(tmp_path / "out")), retries=1, cwd=str(tmp_path))(task, threads=1)
    assert outcome.ok and outcome.attempts == 2


@pytest.mark.skipif(not hasattr(signal, "SIGTSTP"), reason="no Ctrl-Z here")
def test_ctrl_z_stops_the_commands_and_their_workers_too_and_they_go_on_together(tmp_path, python_tasks):
    code = f"""
import os, signal, threading
from semslam.batch import work
from semslam.batch.tasks import Task
work.CHILD = "fake_child"
tick = '''
import pathlib, subprocess
place = pathlib.Path(sys.argv[2])
place.mkdir()
work = "import sys, time\\\\nwhile True: open(sys.argv[1], 'w').write(str(time.time())); time.sleep(0.02)"
subprocess.run([sys.executable, "-c", work, str(place / "tick")])
'''
job = work.Work(work.Results.at({str(tmp_path / "out")!r}), 0, {str(tmp_path)!r})
ended = threading.Event()
with work.pausing_together():
    thread = threading.Thread(target=job, args=(Task("t", ("t",), (tick, "{{out}}")), 1, ended.is_set))
    thread.start()
    while not ended.wait(0.05):
        if os.path.exists({str(tmp_path / "end")!r}): ended.set()
    thread.join()
"""
    parent = subprocess.Popen([sys.executable, "-c", code])
    tick = tmp_path / "out" / "t" / "tick"

    def ticking() -> bool:
        before = tick.read_text()
        time.sleep(0.3)
        return tick.read_text() != before

    try:
        deadline = time.monotonic() + 60
        while not tick.exists():
            assert time.monotonic() < deadline, "the command did not begin"
            time.sleep(0.02)
        assert ticking()
        parent.send_signal(signal.SIGTSTP)
        time.sleep(0.3)
        assert not ticking()
        parent.send_signal(signal.SIGCONT)
        assert ticking()
        (tmp_path / "end").touch()
        assert parent.wait(10) == 0
    finally:
        parent.send_signal(signal.SIGCONT)
        parent.kill()


def test_the_message_of_a_wrong_option_is_not_the_frame_around_it(tmp_path, python_tasks):
    job = Work(Results.at(str(tmp_path / "out")), retries=0, cwd=str(tmp_path))
    framed = "╭─ Error ──╮\n│ No such option: --nosuch   │\n╰──────────╯"
    assert job(python_tasks(bad=f"print({framed!r}); sys.exit(2)")[0], threads=1).message == "No such option: --nosuch"


def test_an_interrupted_batch_interrupts_what_runs_begins_nothing_and_keeps_what_is_done(tmp_path, python_tasks):
    """The long task saves what it has when it is interrupted, as `reconstruct` does."""
    job = Work(Results.at(str(tmp_path / "out")), retries=3, cwd=str(tmp_path))
    long = """
import pathlib, time
try:
    pathlib.Path(sys.argv[2]).mkdir()
    time.sleep(60)
except KeyboardInterrupt:
    pathlib.Path(sys.argv[2], "saved").touch()
    sys.exit(130)
"""
    tasks = python_tasks(good=WRITE, long=long, later=WRITE)
    interrupted = (tmp_path / "out" / "long").exists
    outcomes = {outcome.name: outcome for outcome in ENGINES["local"](tasks, job, 1, interrupted)}
    assert outcomes.keys() == {"good", "long"} and outcomes["good"].ok
    assert (outcomes["long"].attempts, outcomes["long"].message) == (1, "interrupted; the same command goes on")
    assert (tmp_path / "out" / "long" / "saved").exists()


def test_a_command_that_ends_an_interruption_as_a_failure_is_not_begun_again(tmp_path, python_tasks):
    job = Work(Results.at(str(tmp_path / "out")), retries=3, cwd=str(tmp_path))
    (task,) = python_tasks(
        deaf="import time; open(sys.argv[2], 'w').close()\ntry: time.sleep(60)\nfinally: sys.exit(1)"
    )
    outcome = job(task, threads=1, interrupted=(tmp_path / "out" / "deaf").exists)
    assert not outcome.ok and outcome.attempts == 1


def test_ctrl_c_ends_a_batch_with_a_line_and_a_summary(tmp_path, monkeypatch):
    def interrupted_engine(tasks, work, jobs, interrupted):
        yield Outcome(tasks[0].name, "doctor", True, 1, 1.0)
        signal.raise_signal(signal.SIGINT)
        assert interrupted()

    monkeypatch.setitem(ENGINES, "local", interrupted_engine)
    file = listing(tmp_path / "list.txt", "a", "b", "c")
    told = CliRunner().invoke(app, ["batch", str(file), "--out", str(tmp_path / "out"), "--command", "doctor"])
    assert told.exit_code == 130 and "stopped with 2 of 3 tasks to go; the same command goes on" in told.output
    assert [row["name"] for row in csv.DictReader((tmp_path / "out" / "summary.csv").open())] == ["a"]


def test_results_in_a_file_are_one_line(tmp_path):
    (tmp_path / "taken").touch()
    for address in (tmp_path / "taken", tmp_path / "taken" / "below"):
        with pytest.raises(ValueError, match="is a file, not a folder; name another place"):
            Results.at(str(address))


def test_an_address_of_no_known_protocol_is_named():
    with pytest.raises(ValueError, match=r"--out nosuch://x/y: Protocol not known"):
        Results.at("nosuch://x/y")


def test_a_task_that_cannot_even_be_begun_stops_no_other(tmp_path, python_tasks):
    job = Work(Results.at(str(tmp_path / "out")), retries=0, cwd=str(tmp_path))
    (tmp_path / "out" / "tasks" / "bad.log").mkdir()
    bad, good = ENGINES["local"](python_tasks(bad=WRITE, good=WRITE), job, 1, never)
    assert not bad.ok and "bad.log" in bad.message and good.ok


def test_another_command_is_another_task(tmp_path, python_tasks):
    job = Work(Results.at(str(tmp_path / "out")), retries=0, cwd=str(tmp_path))
    assert job(python_tasks(a=WRITE)[0], threads=1).ok
    assert undone(python_tasks(a=WRITE + "; pass"), job)[1] == []


def test_the_summary_names_what_failed_and_shows_the_maps(tmp_path):
    results = Results.at(str(tmp_path))
    results.write("kitchen/preview.png", "")
    outcomes = [
        Outcome("kitchen", "reconstruct", True, 1, 2.5, figures={"surfels": 1234567, "rpe_m": 0.01}, input="a/kitchen"),
        Outcome("hall & stairs", "reconstruct", False, 2, 1.0, "no such sequence"),
    ]
    write_summary(outcomes, results)
    rows = list(csv.DictReader((tmp_path / "summary.csv").open()))
    assert rows[0]["input"] == "a/kitchen" and rows[0]["rpe_m"] == "0.01"
    assert rows[1]["surfels"] == "" and rows[1]["message"] == "no such sequence"
    page = (tmp_path / "summary.html").read_text()
    assert "1 of 2 done" in page and 'src="kitchen/preview.png"' in page and "hall &amp; stairs" in page


@pytest.mark.slow
def test_one_failure_stops_nothing_and_done_tasks_are_not_repeated(tmp_path):
    out, small = tmp_path / "out", "room:frames=2,width=64,height=48"
    file = listing(tmp_path / "list.txt", small, "nowhere", small)
    words = ["batch", str(file), "--out", str(out), "--command", "reconstruct --labels none --no-mesh"]
    first = CliRunner().invoke(app, words)
    assert first.exit_code == 1 and "2 of 3 done, 0 of them before" in first.output
    rows = list(csv.DictReader((out / "summary.csv").open()))
    assert [row["input"] for row in rows] == [small, "nowhere", small]
    assert [row["ok"] for row in rows] == ["True", "False", "True"] and rows[0]["frames_fused"] == "2"
    assert rows[1]["attempts"] == "1" and "nowhere: no such sequence" in rows[1]["message"]
    maps = [path.stat().st_mtime_ns for path in sorted(out.glob("*/map.ply"))]
    assert len(maps) == 2
    again = CliRunner().invoke(app, words)
    assert "2 of 3 done, 2 of them before" in again.output
    assert [path.stat().st_mtime_ns for path in sorted(out.glob("*/map.ply"))] == maps


@pytest.mark.slow
@pytest.mark.skipif("not __import__('importlib.util').util.find_spec('ray')", reason="Ray is not installed")
def test_a_killed_worker_of_a_cluster_costs_no_task(tmp_path):
    """Two workers on a local cluster; one is killed in the middle of its run. Both maps are those of a plain loop."""
    file = listing(tmp_path / "list.txt", "room:frames=40,seed=1", "room:frames=40,seed=2")
    command = "reconstruct --labels none --no-mesh --checkpoint 0.2"
    words = ["batch", str(file), "--command", command, "--jobs", "2"]
    plain = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "plain")])
    assert plain.exit_code == 0, plain.output
    killed: list[int] = []

    def kill_a_worker() -> None:
        folder = tmp_path / "ray" / "room_frames_40_seed_1"
        while not (folder / "checkpoint" / "table.npz").exists():
            time.sleep(0.02)
        child = int((folder / ".lock").read_text())
        worker = int(Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[1])
        os.kill(worker, signal.SIGKILL)
        killed.extend([worker, child])

    thread = threading.Thread(target=kill_a_worker, daemon=True)
    thread.start()
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "ray"), "--engine", "ray"])
    thread.join(timeout=1)
    assert killed and done.exit_code == 0, done.output
    maps = sorted(tmp_path.glob("plain/*/map.ply"))
    assert len(maps) == 2
    for path in maps:
        assert path.read_bytes() == (tmp_path / "ray" / path.parent.name / "map.ply").read_bytes()
