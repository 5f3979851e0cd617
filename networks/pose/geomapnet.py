"""PoseNet and MapNet as trained by geomapnet's code (Brahmbhatt et al., CVPR 2018), by the names of its tensors.

Its files hold no statistics. `pose_stats.txt` (mean and deviation of the translations) and `stats.txt` (mean and
variance of the colours), which that code keeps with a data set, are read where they lie beside the weights; without
them translations are metres, as on 7-Scenes, and colours those of ImageNet.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from networks.joint.encoders import MEAN, STD

_NAMES = {  # beginnings of names, theirs -> ours
    "feature_extractor.fc.": "embedding.linear.",
    "feature_extractor.": "encoder.",
    "fc_xyz.": "regressor.translation.",
    "fc_wpqr.": "regressor.rotation.",
}
INPUT_SIZE = (256, 341)  # height, width: the shorter side of 640x480 brought to 256


def is_geomapnet(tensors: dict[str, Tensor]) -> bool:
    """Whether these are the tensors of such a network."""
    return any(key.endswith("fc_wpqr.weight") for key in tensors)


def converted(tensors: dict[str, Tensor], path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors by our names, for images normalised as ours are, and the metadata of a weights file of ours."""
    state: dict[str, Tensor] = {}
    for key, value in tensors.items():
        key = key.removeprefix("mapnet.")
        ours = next((own + key[len(theirs) :] for theirs, own in _NAMES.items() if key.startswith(theirs)), key)
        state[ours] = value
    if "embedding.linear.weight" not in state:
        raise ValueError(f"{path}: no tensor feature_extractor.fc.weight among its {len(state)}; expected a PoseNet")
    mean, variance = _two_rows(path.with_name("stats.txt"), (MEAN, np.square(STD)))
    _take_our_colors(state, torch.tensor(mean).float(), torch.tensor(np.sqrt(variance)).float())
    translation, deviation = _two_rows(path.with_name("pose_stats.txt"), ((0, 0, 0), (1, 1, 1)))
    metadata = {
        "network": "pose",
        "encoder": "resnet34",
        "feature": len(state["embedding.linear.weight"]),
        "mean": list(translation),
        "std": list(deviation),
        "input_size": list(INPUT_SIZE),
    }
    return state, metadata


def _take_our_colors(state: dict[str, Tensor], mean: Tensor, std: Tensor) -> None:
    """Let the first convolution read colours that were normalised by ImageNet's statistics, exactly but at the border.

    (x - m') / s' of y = (x - m) / s is y s / s' + (m - m') / s'; the constant goes into the norm behind it.
    """
    weight = state["encoder.conv1.weight"]
    constant = (weight * ((torch.tensor(MEAN) - mean) / std)[None, :, None, None]).sum((1, 2, 3))
    state["encoder.conv1.weight"] = weight * (torch.tensor(STD) / std)[None, :, None, None]
    state["encoder.bn1.running_mean"] = state["encoder.bn1.running_mean"] - constant


def _two_rows(path: Path, otherwise: Any) -> tuple[list[float], list[float]]:
    """Two rows of three numbers of a text file, or `otherwise` where there is no such file."""
    if not path.is_file():
        return [float(x) for x in otherwise[0]], [float(x) for x in otherwise[1]]
    try:
        rows = np.loadtxt(path, ndmin=2)
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not two rows of three numbers ({error})") from None
    if rows.shape != (2, 3) or not np.isfinite(rows).all() or (rows[1] <= 0).any():
        raise ValueError(f"{path}: expected two rows of three numbers, a mean and a positive deviation or variance")
    return rows[0].tolist(), rows[1].tolist()
