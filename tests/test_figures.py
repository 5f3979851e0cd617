"""What an evaluation prints and pools: the figures of maps of any number of classes."""

from __future__ import annotations

import numpy as np
import pytest

from semslam.batch.results import Results
from semslam.batch.summary import write_summary
from semslam.batch.work import Outcome
from semslam.judging.figures import label_figures, table
from semslam.judging.map_labels import MapLabelScores
from semslam.judging.run import Evaluation, over_scenes


def scores_of(classes: int) -> MapLabelScores:
    """Of a map whose labels are half right."""
    truth = np.random.default_rng(0).integers(0, classes, (48, 64)).astype(np.uint8)
    called = np.where(np.arange(64) < 32, truth, (truth + 1) % classes).astype(np.uint8)
    scores = MapLabelScores(classes)
    scores.map.add(called, truth)
    return scores


@pytest.mark.parametrize("classes", [6, 40, 150])
def test_labels_are_printed_and_pooled_whatever_the_number_of_classes(classes):
    labels = {classes: scores_of(classes)}
    figures = label_figures(labels)
    assert [name for name in figures if name.startswith("miou_")] == [f"miou_{classes}_single", f"miou_{classes}_map"]
    lines = table(figures).splitlines()
    assert lines[0].startswith("labels (one confusion matrix") and lines[1].split()[:3] == ["miou", str(classes), "map"]
    mean = over_scenes({name: Evaluation(figures | {"poses": "dataset"}, labels=labels) for name in "ab"})
    assert mean[f"miou_{classes}_map_pooled"] == pytest.approx(figures[f"miou_{classes}_map"])


def test_the_page_of_a_batch_shows_the_miou_of_maps_and_networks_whatever_the_number_of_classes(tmp_path):
    figures = {"miou_6_map": 0.5, "miou_150": 0.25, "miou_6_single": 0.1}
    write_summary([Outcome("street", "evaluate", True, 1, 2.5, figures=figures)], Results.at(str(tmp_path)))
    page = (tmp_path / "summary.html").read_text()
    assert "miou 6 map" in page and "miou 150" in page and "miou 6 single" not in page
