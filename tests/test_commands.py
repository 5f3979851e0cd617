"""The command line itself: settings, help, and what it says of options that do not go together."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
import yaml
from command_line import ROOM, refused, semslam

from semslam import config as configs
from semslam.cli import main
from semslam.commands.app import FLAGS, with_flags
from semslam.runs.config import RunConfig
from semslam.runs.folder import RunFolder


def test_the_version_is_that_of_the_package(capsys):
    import semslam as package

    assert semslam("--version") == 0
    assert capsys.readouterr().out.strip() == f"semslam {package.__version__}"


def test_slam_and_open_sequence_are_imported_when_asked_for_and_not_before():
    code = (
        "import sys, semslam; assert not {'numba', 'sequences', 'semslam.slam'} & set(sys.modules); "
        "from semslam import Slam, open_sequence; assert Slam.__name__ == 'Slam' and callable(open_sequence)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_imports_nothing_slow():
    code = (
        "import sys\nfrom semslam.cli import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "slow = {'torch', 'numba', 'cv2', 'open3d', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "assert not slow, slow"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_printed_settings_are_a_settings_file(capsys, tmp_path):
    assert semslam("config", "--set", "slam.fusion.far=7") == 0
    printed = capsys.readouterr().out
    (tmp_path / "settings.yaml").write_text(printed)
    assert configs.load(tmp_path / "settings.yaml", RunConfig).slam.fusion.far == 7.0
    assert yaml.safe_load(printed)["slam"]["fusion"]["near"] == RunConfig().slam.fusion.near


def test_explaining_names_every_setting(capsys):
    assert semslam("config", "--explain") == 0
    printed = capsys.readouterr().out
    for row in configs.explained(RunConfig):
        assert f"{row.name} = {row.default}\n" in printed


def test_any_setting_is_set_from_the_command_line(tmp_path, capsys):
    options = ["--set", "slam.fusion.far=2.5", "--set", "slam.perception.labels=none", "--no-mesh"]
    assert semslam("reconstruct", ROOM, "--out", tmp_path / "a", *options) == 0
    assert RunFolder.open(tmp_path / "a").load_config().slam.fusion.far == 2.5
    line = refused(capsys, "reconstruct", ROOM, "--out", tmp_path / "a", "--set", "slam.fusion.fra=2")
    assert "unknown setting 'fra'" in line and "far" in line


def test_every_option_of_a_setting_sets_a_setting_that_exists():
    known = {row.name for row in configs.explained(RunConfig)} | {"slam.corrections"}
    assert set(FLAGS) <= known


def test_settings_in_messages_are_shown_as_their_options():
    assert with_flags("`slam.perception.depth` is 'x'") == "--depth is 'x'"
    assert with_flags("`slam.fusion.gate` is 'x'") == "`slam.fusion.gate` is 'x'"  # which has no option


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evaluate", "--map", "a.ply", "--trajectory", "b.txt", "--reference", "c"], "one of --map and --trajectory"),
        (["evaluate", "run", "--reference", "c"], "--trajectory run/trajectory.txt --reference c"),
        (["evaluate", "run", "--map", "c"], "name the folder of a run, or one of"),
        (["evaluate", "--map", "a", "--reference", "b", "--truth", "tsdf"], "--truth is for runs, not for --map"),
        (["evaluate", "--map", "a", "--reference", "b", "--with-scale"], "--with-scale is for runs and --trajectory"),
        (["evaluate", "--trajectory", "a", "--reference", "b", "--sequence", "s"], "--sequence is for runs and --map"),
        (["evaluate", "--trajectory", "a"], "--trajectory needs --reference FILE"),
        (["score", "--data", "x", "--frames", "1:2"], "--frames is for pose weights, not for joint weights"),
        (["score", "--recording", "x", "--frames", "1:2"], "--frames is for pose weights, not for --recording"),
        (["export", "x", "--out", "/proc/x"], "/proc/x: cannot write here: "),
        (["reconstruct", ROOM, "--out", "x", "--corrections", "all"], "--corrections is for --depth predicted"),
        (["reconstruct", ROOM, "--out", "x", "--depth", "predicted", "--corrections", "magic"], "there is no 'magic'"),
    ],
)
def test_options_that_do_not_go_together_are_named(capsys, words, said):
    assert said in refused(capsys, *words)


def test_whatever_a_library_raises_is_one_line_and_traceback_shows_all(capsys, monkeypatch):
    class OfItsOwn(Exception):
        pass

    def broken(*_, **__):
        raise OfItsOwn("deep\ninside")

    monkeypatch.setattr("semslam.doctor.doctor.diagnosis", broken)
    assert "OfItsOwn: deep inside (--traceback shows where)" in refused(capsys, "doctor", "room")
    with pytest.raises(OfItsOwn):
        semslam("doctor", "room", "--traceback")


@pytest.mark.parametrize(
    "command", ["doctor room", "reconstruct room --out O", "compare room --out O", "convert room O"]
)
@pytest.mark.parametrize("text", ["5-60", "0-60", "5..60", "5:60"])
def test_a_range_of_frames_is_told_in_the_words_that_set_one(capsys, monkeypatch, tmp_path, command, text):
    """Some parsers of numbers take 0-60 for -60."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["semslam", *command.split(), "--frames", text])
    with pytest.raises(SystemExit) as ended:
        main()
    told = " ".join(word for word in capsys.readouterr().err.split() if word != "│")
    first = int(text[0])
    assert ended.value.code == 2 and f"are --start {first} --frames {61 - first}" in told, told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("localise RUN IMAGES --json nodir/x.json", "its folder nodir does not exist"),
        ("localise RUN IMAGES --out .", "is a folder; give the name of a file"),
        ("localise RUN IMAGES --figure cameras.doc", "pictures are written as .png"),
        ("view RUN --png map.gif", "pictures are written as .png"),
        ("view RUN --video map.avi", "films are written as .mp4"),
        ("view RUN --html nodir/map.html", "its folder nodir does not exist"),
        ("attend IMAGE --out heat.txt", "pictures are written as .png"),
        ("evaluate RUN --json nodir/x.json", "its folder nodir does not exist"),
        ("score --data DATA --json nodir/x.json", "its folder nodir does not exist"),
        ("score --data DATA --out file/x", "file is a file, not a folder"),
        ("compare ROOM --out O --json nodir/x.json", "its folder nodir does not exist"),
        *((f"{command} --out file", "is a file, not a folder; name another") for command in (
            "reconstruct ROOM", "predict IMAGE", "label DATA --weights W", "export RUN", "merge A B", "refine RUN",
            "relabel RUN", "compare ROOM",
        )),
    ],
)  # fmt: skip
def test_outputs_that_cannot_be_written_are_told_before_any_work(capsys, monkeypatch, tmp_path, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setattr("sys.argv", ["semslam", *words.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr().err
    assert ended.value.code == 2 and said in told and len(told.splitlines()) == 1, told


@pytest.mark.skipif(not hasattr(signal, "SIGCHLD"), reason="no children that end here")
def test_a_parent_that_ignores_its_childrens_ends_does_not_hide_those_of_ours(monkeypatch):
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    monkeypatch.setattr("sys.argv", ["semslam", "kinds"])
    try:
        with pytest.raises(SystemExit):
            main()
        assert subprocess.run([sys.executable, "-c", "raise SystemExit(3)"], check=False).returncode == 3
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_ends_with_a_word_and_gives_the_folder_back(tmp_path, number):
    """While the last files are written, too: what is fused is saved."""
    words = f"""
import os, semslam.runs.finished.finish as stage
from semslam.cli import main
stage.export.write_map_in_parts = lambda *_: os.kill(os.getpid(), {int(number)})
import sys
sys.argv = ["semslam", "reconstruct", {ROOM!r}, "--out", {str(tmp_path / "run")!r}, "--labels", "none"]
main()
"""
    ended = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 130 and "all frames are fused and saved" in ended.stdout
    assert not (tmp_path / "run" / ".lock").exists() and RunFolder.open(tmp_path / "run").exists


def test_a_file_that_is_none_of_settings_is_not_repeated_as_a_whole(capsys, tmp_path):
    (tmp_path / "secret").write_text("root:x:0:0:root:/root:/bin/bash\n" * 40)
    line = refused(capsys, "reconstruct", ROOM, "--out", tmp_path / "run", "--config", tmp_path / "secret")
    assert "expected settings by name" in line and line.count("root:x") < 4


def test_a_principal_point_far_outside_the_images_is_named(capsys, tmp_path):
    camera = "width: 128\nheight: 96\nfx: 100\nfy: 100\ncx: 9999\ncy: 48\n"
    (tmp_path / "camera.yaml").write_text(camera)
    semslam("convert", ROOM, tmp_path / "recording")
    words = ("reconstruct", tmp_path / "recording", "--out", tmp_path / "run", "--camera", tmp_path / "camera.yaml")
    assert "the principal point (9999, 48) is far outside the" in refused(capsys, *words)


def test_an_interrupt_that_compiled_code_wraps_is_one(capsys, monkeypatch):
    def interrupted(*arguments, **options):
        raise SystemError("returned a result with an exception set") from KeyboardInterrupt()

    monkeypatch.setattr("semslam.cli.app", interrupted)
    monkeypatch.setattr("sys.argv", ["semslam", "kinds"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130 and capsys.readouterr().err == "semslam: interrupted\n"
