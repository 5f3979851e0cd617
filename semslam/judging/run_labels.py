"""How well the labels of a run's map fit the sequence's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np

from semslam.camera import Camera
from semslam.cloud import CloudInParts, most_probable
from semslam.frame import Frame, evenly_spread
from semslam.images.resizing import resized_ids
from semslam.judging.map_labels import MapLabelScores, SurfelClasses, SurfelVotes
from semslam.labels import LABEL_SETS, remap_labels, remap_probabilities
from semslam.perception import Network
from semslam.rendering.splatting import render_in_parts
from semslam.runs import networks
from semslam.runs.config import RunConfig
from semslam.runs.progress import Progress
from sequences import Sequence as Recording
from sequences.prefetch import read_ahead

VOTES = 60  # frames that are enough to tell surfels' true labels


def label_scores(
    clouds: CloudInParts,
    progress: Progress,
    sequence: Recording,
    config: RunConfig,
    network: Network | None,
    frames: Iterable[int] | None = None,
) -> dict[int, MapLabelScores]:
    """Scores by the number of classes: of the map's own and, of NYU-40, of the 13 classes that it merges into.

    Empty where map or sequence have no labels, or no table leads from the sequence's labels to the map's. network:
    in place of the one that `config.weights` names. frames: that the map is rendered back into; those whose labels the
    run fused by default.
    """
    settings = config.slam.perception
    sets = [settings.classes] + (["nyu13"] if settings.classes == "nyu40" else [])
    if settings.labels == "none" or not sequence.has_labels or clouds.probabilities is None or len(clouds) == 0:
        return {}
    if sequence.label_set != "nyu40" and sequence.label_set not in sets:
        return {}
    if settings.labels == "predicted" and network is None:
        network = networks.predictor(settings.classes, config.weights, config.engine)
    pose_of = progress.posed()
    labelled = [i for i in sequence.labelled_indices if i in pose_of]
    scored = set(labelled).intersection(progress.labelled if frames is None else frames)
    voting = set(evenly_spread(labelled, VOTES))
    scores = {name: MapLabelScores(len(LABEL_SETS[name])) for name in sets}
    votes = {name: SurfelVotes(len(LABEL_SETS[name])) for name in sets}
    for i, frame, camera, truth in _labelled_frames(sequence, sorted(scored | voting), settings.width):
        rendering = render_in_parts(clouds, camera, pose_of[i], cull_back=False)
        truths = {name: remap_labels(truth, sequence.label_set, name) for name in sets}
        if i in voting:
            for name in sets:
                votes[name].add(rendering, truths[name])
        if i not in scored:
            continue
        alone = None
        if settings.labels == "predicted" and network is not None:
            alone = network.class_probabilities(frame.color, (camera.width, camera.height))
        shown, index = _shown(rendering.index, len(clouds))
        probabilities = clouds.probabilities(shown)
        for name in sets:
            from_network = None if alone is None else _as(alone, settings.classes, name)
            surfels = SurfelClasses(_as(probabilities, settings.classes, name))
            scores[name].add(truths[name], index, surfels, from_network)
    for part in clouds:
        assert part.class_probabilities is not None
        for name in sets:
            called = most_probable(_as(part.class_probabilities, settings.classes, name))
            scores[name].surfels.add(called[None], votes[name].labels(part.positions)[None])
    return {len(LABEL_SETS[name]): found for name, found in scores.items()}


def _shown(index: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The surfels (M,) of so many that an image (H, W) of their numbers shows, and the image of numbers among these."""
    among = np.full(count + 1, -1, np.int32)  # the last is that of -1, nothing
    among[index.reshape(-1)] = 0
    among[-1] = -1
    shown = np.flatnonzero(among >= 0)
    among[shown] = np.arange(len(shown))
    return shown, among[index]


def _labelled_frames(
    sequence: Recording, indices: Iterable[int], width: int | None
) -> Iterator[tuple[int, Frame, Camera, np.ndarray]]:
    """Index, frame, camera and labels of the frames that can be read and have labels; both at the map's width."""
    for index, frame in read_ahead(partial(sequence.try_read, labels=True), indices):
        if not isinstance(frame, Frame) or frame.labels is None:
            continue
        camera, labels = frame.camera, frame.labels
        if width is not None and width != camera.width:
            camera = camera.of_width(width)
            labels = resized_ids(labels, (camera.width, camera.height))
        yield index, frame, camera, labels


def _as(probabilities: np.ndarray, classes: str, name: str) -> np.ndarray:
    return probabilities if classes == name else remap_probabilities(probabilities, classes, name)
