"""States of runs that earlier versions saved, brought up to date."""

from __future__ import annotations

import numpy as np

from semslam import config as configs
from semslam.engine.labels.evidence import rows_of
from semslam.engine.labels.label_fusion import LabelFusionConfig
from semslam.perception import PerceptionConfig


def upgraded(
    state: dict[str, np.ndarray], perception: PerceptionConfig, labels: LabelFusionConfig
) -> dict[str, np.ndarray]:
    """The state with what earlier versions did not save, or saved otherwise."""
    if "run_labelled" not in state:  # they labelled frames by their index, not by their count
        skipped = len(state["run_corrupt"]) + len(state["run_held_out"])
        found = np.setdiff1d(state["run_indices"], state["run_lost"])
        labelled = found[found % perception.labels_every == 0] if perception.labels != "none" else found[:0]
        state = state | {"run_labelled": labelled, "perception_perceived": state["run_next_index"] - skipped}
    if "scores" in state and "evidence" not in state:
        scores = state["scores"]
        state = {name: array for name, array in state.items() if name != "scores"}
        state |= {"evidence": _rows(scores, state, labels), "classes": np.array(scores.shape[1])}
    return state


def _rows(scores: np.ndarray, state: dict[str, np.ndarray], labels: LabelFusionConfig) -> np.ndarray:
    """Rows of evidence of the probabilities that earlier versions read from scores (N, C) float32.

    They did not count views: the evidence is taken for that of one.
    """
    total = scores.sum(axis=1, keepdims=True)
    if labels.method == "bayes":
        settings = configs.parsed_yaml(str(state["run_config"])) if "run_config" in state else {}
        scores = scores / (1 + total / settings.get("slam", {}).get("labels", {}).get("saturation", 20.0))
    else:
        scores = np.divide(100 * scores, total, out=np.zeros_like(scores), where=total > 0)
    known = (total[:, 0] > 0).astype(np.float32)
    return rows_of(scores, known, known)
