"""What people are told of the formats is what there is."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner
from written_recordings import put

from semslam.cli import app
from sequences import READERS, open_sequence
from sequences.devices import DEVICES, table

RECORDINGS = Path(__file__).resolve().parents[1] / "docs" / "recordings.md"


def test_every_kind_has_a_device_and_every_device_a_kind():
    assert {device.kind for device in DEVICES} == set(READERS)
    assert {device.tried for device in DEVICES} == {"real", "real frames", "written", "built in"}


def test_the_page_of_recordings_lists_the_devices():
    rows = [f"| {d.name} | {d.sequence} | `{d.kind}` | {d.tried} |" for d in DEVICES]
    assert [line for line in RECORDINGS.read_text().splitlines() if line in rows] == rows


def test_a_folder_of_no_kind_is_one_line_that_names_the_command_with_the_table(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"fits no known kind of sequence; `semslam kinds` lists") as told:
        open_sequence(tmp_path)
    assert len(str(told.value).splitlines()) == 1
    shown = CliRunner().invoke(app, ["kinds"])
    assert shown.exit_code == 0 and shown.output == table() + "\n" and "NAME.r3d" in shown.output


def test_a_folder_of_recordings_names_them(tmp_path):
    put(tmp_path / "scan" / "color" / "0.png", b"x")
    put(tmp_path / "clip.mp4", b"x")
    put(tmp_path / "other.mov", b"x")
    put(tmp_path / "notes.txt", b"x")
    with pytest.raises(ValueError, match=r"holds some; give one of them: .*clip\.mp4, .*other\.mov, .*scan$"):
        open_sequence(tmp_path)


def test_what_nerfstudio_writes_is_named_and_its_depth_not_offered_as_a_recording(tmp_path):
    for name in ("images/0.png", "images/1.png", "depths/0.png", "depths/1.png", "transforms.json"):
        put(tmp_path / name, b"x")
    with pytest.raises(ValueError, match=r"transforms\.json .* is not read; give the folder of its images"):
        open_sequence(tmp_path)


def test_an_archive_of_no_kind_is_to_be_unpacked(tmp_path):
    put(tmp_path / "scan.tar.gz", b"x")
    with pytest.raises(ValueError, match="unpack it and give the folder"):
        open_sequence(tmp_path / "scan.tar.gz")
