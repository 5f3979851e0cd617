"""The networks that a run asks for, loaded from their weights files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from semslam.labels import remapping
from semslam.tracking.predicted_poses import PoseOf

REMEMBERED = 1000  # images: tracking, fusion and the search for planes ask for the depth of the same ones


def weights_file(weights: str | None = None) -> Path:
    """The weights file that a name means; the bundled one by default."""
    from networks.joint import checkpoints

    return Path(weights) if weights else checkpoints.bundled()


def predictor(
    classes: str,
    weights: str | None = None,
    engine: str | None = None,
    shape: tuple[int, int] | None = None,
    beside_others: bool = False,
) -> Any:
    """The network of a weights file (the bundled one by default) with probabilities of the given classes.

    shape: (height, width) of the images to come; their engine then compiles now, and no frame has to wait for it.
    beside_others: half of the cores are left to those who do not wait for it. An engine's threads wait for each other
    in a spin, and have the priority of what loads it.
    """
    from networks.inference.engines import cpu_count
    from networks.inference.predictor import Predictor

    threads = max(1, cpu_count() // 2) if beside_others else None
    network = Predictor.load(weights, engine=engine, threads=threads)
    network.remembered = REMEMBERED
    if classes in network.label_sets:
        network = network.restricted(classes)
    else:
        try:
            table = remapping(network.label_set, classes)
        except ValueError:
            raise ValueError(
                f"{weights_file(weights)}: its network knows {' and '.join(network.label_sets)}, of which no {classes} "
                f"can be made; choose `slam.perception.classes`, or `weights` of a network that knows them"
            ) from None
        network = network.merged(table, classes)
    if shape is not None:
        network.outputs(np.zeros((*shape, 3), np.uint8))
    return network


def pose_network(weights: str) -> PoseOf:
    """The pose network of a weights file; ValueError where it is another network, or needs more than an image."""
    from networks.pose.predictor import PosePredictor

    network = PosePredictor.load(weights)
    name = network.metadata["network"]
    if "pose" not in network.network.tasks:
        raise ValueError(f"{weights}: a {name!r} network tells no pose; name the weights of one that does")
    if network.needs_labels:
        raise ValueError(f"{weights}: a {name!r} network reads labels, which a map has none of before it has a pose")
    return network
