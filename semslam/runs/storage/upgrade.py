"""States of runs that earlier versions saved, brought up to date."""

from __future__ import annotations

import numpy as np

from semslam.perception import PerceptionConfig


def upgraded(state: dict[str, np.ndarray], perception: PerceptionConfig) -> dict[str, np.ndarray]:
    """The state with what earlier versions did not save: they labelled frames by their index, not by their count."""
    if "run_labelled" in state:
        return state
    skipped = len(state["run_corrupt"]) + len(state["run_held_out"])
    found = np.setdiff1d(state["run_indices"], state["run_lost"])
    labelled = found[found % perception.labels_every == 0] if perception.labels != "none" else found[:0]
    return state | {"run_labelled": labelled, "perception_perceived": state["run_next_index"] - skipped}
