"""Images of labels that are broken are no matter to what does without labels."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from command_line import ROOM, semslam

from semslam.doctor.doctor import diagnosis
from sequences import open_sequence
from sequences.conversion import convert
from sequences.recordings.folder import write_folder


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    """Every third of its images of labels is no image, the one of frame 0 among them."""
    path = write_folder(open_sequence(ROOM), tmp_path_factory.mktemp("recorded") / "room")
    for file in sorted((path / "label40").iterdir())[::3]:
        file.write_bytes(b"no image")
    return path


def test_without_labels_every_frame_is_mapped_meshed_and_held_out(recording, tmp_path):
    out = tmp_path / "run"
    assert semslam("reconstruct", recording, "--out", out, "--labels", "none", "--hold-out", 6) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["frames_fused"], metrics["frames_held_out"], metrics["corrupt"]) == (10, 2, [])
    assert metrics["held_out_coverage"] > 0.5 and (out / "mesh.ply").is_file()


@pytest.mark.parametrize("kind", ["folder", "tum"])
def test_conversion_keeps_every_frame_and_tells_of_lost_labels(recording, tmp_path, kind, caplog):
    with caplog.at_level(logging.WARNING):
        assert convert(open_sequence(recording), tmp_path / "out", kind) == (12, 0)
    written = open_sequence(tmp_path / "out")
    assert len(written) == 12 and written.labelled_indices == ([1, 2, 4, 5, 7, 8, 10, 11] if kind == "folder" else [])
    assert ("the labels of 4 frames cannot be read" in caplog.text) == (kind == "folder")


def test_the_doctor_warns_of_the_labels_and_looks_at_all_frames(recording):
    errors = [finding for finding in diagnosis(open_sequence(recording)).findings if finding.level != "hint"]
    (found,) = errors
    assert found.level == "warning" and "the labels of 4 of 12 frames cannot be used" in found.what
