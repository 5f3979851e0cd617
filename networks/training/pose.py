"""The pose networks' training: `train(PoseTraining(...))`, an objective for the loop that trains every network.

PoseNet is `tuple_length` 1; MapNet 3 images `skip` frames apart with `relative` terms; MapNet++ the same with `weights`
of a trained network and `unlabelled` recordings, whose poses are an odometry's (the trajectory.txt that
`semslam reconstruct --poses tracked` writes, for example).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks import distributed
from networks.joint import checkpoints
from networks.losses import IGNORE, cross_entropy, inverse_huber
from networks.pose.encoding import PoseStatistics, decoded
from networks.pose.losses import RELATIVES, WEIGHTINGS, pose_terms
from networks.pose.networks import NETWORKS, JointPoseNetwork, open_network
from networks.pose.parts import PoseModel
from networks.pose.predictor import save
from networks.pose.samples import PoseSamples, PoseSource, batch_of, open_source, tuple_places
from networks.training.loop import Loop, run
from networks.training.optimisation import Group
from networks.training.order import drawn_place
from semslam.config import Count, NotNegative, Range, check_ranges
from semslam.files.writing import replacing
from semslam.metrics.localisation import pose_errors
from semslam.metrics.segmentation import ConfusionMatrix

if TYPE_CHECKING:
    from sequences.images.posed_images import PosedImages


@dataclass(frozen=True)
class PoseTraining:
    """Everything that decides a training of a pose network."""

    out: str  # folder of the checkpoints and the log
    sources: tuple[PoseSource, ...]  # posed images to learn from, all in one world
    validation: PoseSource  # posed images to score
    unlabelled: tuple[PoseSource, ...] = ()  # for MapNet++: only the motions between their poses are used
    network: str = "pose"  # kind of network, a key of networks.pose.networks.NETWORKS
    encoder: str = "resnet34"  # resnet34 | mobilenet_v2
    imagenet: str | None = None  # weights of the encoder to start from: torchvision's state dict, or a folded .npz
    trunk: str | None = None  # for the network joint: weights of a joint network to start from, or "bundled"
    weights: str | None = None  # weights of a pose network to start from; its statistics are kept
    feature: Count = 2048  # size of the embedding
    dropout: Annotated[float, Range(0, 0.99)] = 0.5  # share of the embedding that is dropped in training
    shorter_side: Annotated[int, Range(32, 10_000)] = 256  # pixels: of the images that the network sees
    tuple_length: Count = 1  # images: that are learned from together; 1 is PoseNet, more is MapNet
    skip: Count = 10  # frames: between the images of a tuple
    batch: Count = 64  # tuples: in a step, of all processes together
    relative: str | None = None  # motions within a tuple: difference (as published) | motion (rigid ones) | null
    weighting: str = "geometric"  # of the terms of the loss: geometric | uncertainty
    learned_weights: bool = True  # learn those weights, or keep them as they start
    metric: bool = False  # learn translations in metres, instead of normalised ones
    color: NotNegative = 0.0  # strength of the colour jitter; 0 = none
    encoder_rate: NotNegative = 1e-4  # learning rate of the encoder
    head_rate: NotNegative = 1e-4  # learning rate of the rest
    weight_decay: NotNegative = 5e-4  # of the optimiser
    loop: Loop = field(default_factory=Loop)  # how long, and by which rule

    def __post_init__(self) -> None:
        check_ranges(self, "")
        for name, table in (("network", NETWORKS), ("weighting", WEIGHTINGS), ("relative", RELATIVES)):
            value = getattr(self, name)
            if value not in table and not (name == "relative" and value is None):
                raise ValueError(f"{name} is {value!r}; known are {', '.join(table)}")
        if not self.sources:
            raise ValueError("sources is empty; name at least one set of posed images")
        if self.batch % distributed.world():
            raise ValueError(f"batch is {self.batch}; expected a multiple of {distributed.world()} processes")
        if (self.relative or self.unlabelled) and self.tuple_length < 2:
            raise ValueError("relative terms and unlabelled recordings need a tuple_length of at least 2")
        if self.weights is not None and (self.imagenet is not None or self.trunk is not None):
            other = "imagenet" if self.imagenet is not None else "trunk"
            raise ValueError(f"weights are those of the whole network; leave out weights or {other}")
        if self.trunk and self.network != "joint":
            raise ValueError(f"trunk is for network joint, not {self.network}; leave it out")


def train(config: PoseTraining, report: Callable[[dict[str, float]], None] | None = None) -> dict[str, float]:
    """Train as `config` says, or go on where a killed training stopped; returns the last validation's figures.

    Writes to `config.out` what `networks.training.loop.run` writes, `statistics.json`, and at the end
    `network.safetensors`.

    Args:
        report: called with each row of the log.
    """
    with distributed.process_group():
        objective = PoseObjective(config)
        figures = run(objective, config.loop, config.out, report)
        if distributed.rank() == 0:
            metadata = objective.metadata | {"figures": figures}
            save(f"{config.out}/network.safetensors", objective.network, metadata)
        return figures


class PoseLearner(nn.Module):
    """The network with its losses: a batch of tuples in, the loss out."""

    def __init__(self, network: PoseModel, balance: nn.Module, statistics: PoseStatistics, relative: str | None):
        super().__init__()
        self.network, self.balance, self.statistics, self.relative = network, balance, statistics, relative

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor], dict[str, int]]:
        labels = batch["labels"]
        outputs = self.network.tuple_outputs(batch["image"], labels if self.network.reads_labels else None)
        losses: dict[str, Tensor] = {}
        if "pose" in outputs:
            placed = batch["placed"] if batch["any_unplaced"] else None
            losses |= pose_terms(outputs["pose"].float(), batch["pose"], self.statistics, self.relative, placed)
        if "segmentation" in outputs and distributed.summed((labels != IGNORE).any()[None].float()) > 0:
            losses["segmentation"] = cross_entropy(outputs["segmentation"].flatten(0, 1).float(), labels.flatten(0, 1))
        if "depth" in outputs:
            predicted = outputs["depth"].flatten(0, 1)[:, 0].float()
            depth = batch["depth"].flatten(0, 1)[:, None]
            truth = F.interpolate(depth, size=predicted.shape[-2:], mode="nearest-exact")[:, 0]
            if distributed.summed((truth > 0).any()[None].float()) > 0:
                losses["depth"] = inverse_huber(predicted, truth, truth > 0)
        if not losses:
            raise ValueError("a batch without any truth; name labels for a network that predicts labels alone")
        extra = self.network.extra_terms(outputs, batch)
        everyone = len(batch["image"]) * distributed.world()
        loss = torch.stack([self.balance(losses), *extra.values()]).sum()
        terms = {name: term.detach() for name, term in {**losses, **extra}.items()}
        return loss, terms, dict.fromkeys(("encoder", "head", "balance"), everyone)


class PoseObjective:
    """Posed images for a pose network (an `Objective`)."""

    measure = "score"
    steady = False

    def __init__(self, config: PoseTraining) -> None:
        self.config, self.recipe = config, asdict(config)
        kind = NETWORKS[config.network]
        posed = [_opened(source, kind) for source in config.sources]
        validation = _opened(config.validation, kind)
        odometry = [open_source(source) for source in config.unlabelled]
        size = sized(posed[0][0].color, config.shorter_side)
        self.statistics = _statistics(config, posed)
        label_set = next((images.label_set for images in posed if images.label_set), None)
        self.num_classes = len(next(i.colors() for i in posed if i.label_set)) if label_set else 1
        labels, depth = kind.reads_labels or "segmentation" in kind.tasks, "depth" in kind.tasks
        found = sorted({i.label_set for i in (*posed, *odometry, validation) if i.label_set})
        if labels and len(found) > 1:
            raise ValueError(f"the sources' labels are of different sets: {', '.join(found)}; choose one")
        kept = [source.in_memory for source in (*config.sources, *config.unlabelled)]
        sets = [PoseSamples(images, size, labels, depth, keep) for images, keep in zip(posed + odometry, kept)]
        self.sets, self.odometry = sets[: len(posed)], sets[len(posed) :]
        self.validation = PoseSamples(validation, size, labels, in_memory=config.validation.in_memory)
        torch.manual_seed(config.loop.seed)
        settings = {"encoder": config.encoder, "feature": config.feature, "dropout": config.dropout}
        network = open_network(config.network, settings | {"num_classes": self.num_classes})
        network.set_statistics(self.statistics)
        _start(network, config, posed)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        balance = WEIGHTINGS[config.weighting](_terms(config, kind), config.learned_weights)
        self.learner = PoseLearner(self.network, balance, self.statistics, config.relative)
        self.groups = _groups(self.network, balance, config)
        self.metadata: dict[str, Any] = {
            "network": config.network,
            **settings,
            "num_classes": self.num_classes,
            "class_set": label_set,
            "mean": list(self.statistics.mean),
            "std": list(self.statistics.std),
            "input_size": list(size),
            "recipe": self.recipe,
        }

    def batch(self, step: int, progress: float) -> dict[str, Any]:
        share = slice(distributed.rank(), None, distributed.world())
        config, seed = self.config, self.config.loop.seed
        positions = range(step * config.batch, (step + 1) * config.batch)
        tuples = []
        # of MapNet++ every second tuple is of the odometry's
        turns = [len(self.odometry) > 0 and p % 2 == 1 for p in positions]
        for unplaced in (False, True):
            own = [p for p, turn in zip(positions[share], turns[share]) if turn == unplaced]
            sets = self.odometry if unplaced else self.sets
            for p in own:
                which, place = drawn_place([len(samples) for samples in sets], p // 2 if self.odometry else p, seed)
                recordings = sets[which].images.recordings
                places = tuple_places(recordings, place, config.tuple_length, config.skip)
                tuples.append((sets[which], places, not unplaced))
        generators = [np.random.default_rng([seed, 2, p]) for p in positions[share]]
        batch = batch_of(tuples, self.statistics, generators, config.color)
        return batch | {"any_unplaced": len(self.odometry) > 0}

    def validate(self, network: nn.Module) -> dict[str, float]:
        assert isinstance(network, PoseModel)
        figures = scored(network, self.validation, self.statistics, self.num_classes)
        if "median_m" in figures:  # a degree counts as what it moves a point at one metre
            figures["score"] = -figures["median_m"] - float(np.radians(figures["median_deg"]))
        else:
            figures["score"] = figures.get("miou", 0.0)
        return figures


@torch.no_grad()
def scored(
    network: PoseModel, samples: PoseSamples, statistics: PoseStatistics, num_classes: int, batch: int = 16
) -> dict[str, float]:
    """Median and mean errors of the poses in metres and degrees, mIoU and pixel accuracy of the labels.

    The figures that a training is steered by, labels at the network's size; `semslam score` gives more.
    """
    found: list[np.ndarray] = []
    confusion = ConfusionMatrix(num_classes)
    device = next(network.parameters()).device
    for start in range(0, len(samples), batch):
        places = range(start, min(start + batch, len(samples)))
        tensors = batch_of([(samples, np.array([place]), True) for place in places], statistics)
        labels = tensors["labels"][:, 0]
        outputs = network.outputs(tensors["image"][:, 0].to(device), labels.to(device))
        if "pose" in outputs:
            found.append(decoded(outputs["pose"].double().cpu().numpy(), statistics))
        if "segmentation" in outputs:
            confusion.add(outputs["segmentation"].argmax(1).cpu().numpy(), labels.numpy())
    figures: dict[str, float] = {}
    if found:
        figures |= pose_errors(np.concatenate(found), samples.images.T_world_camera).figures()
    if confusion.counts.any():
        scores = confusion.scores()
        figures |= {"miou": scores.miou, "pixel_accuracy": scores.pixel_accuracy}
    return figures


def sized(image: np.ndarray, shorter_side: int) -> tuple[int, int]:
    """Height and width of an image whose shorter side is brought to so many pixels."""
    height, width = image.shape[:2]
    scale = shorter_side / min(height, width)
    return round(height * scale), round(width * scale)


def _opened(source: PoseSource, kind: type[PoseModel]) -> PosedImages:
    """The images of a source; those without labels left out where the network cannot do without."""
    images = open_source(source)
    if images.label_set is None and (kind.reads_labels or kind.tasks == ("segmentation",)):
        raise ValueError(
            f"{source.path}: there are no labels, which this network needs; name a folder of them (labels)"
        )
    if kind.reads_labels and images.labelled is not None:
        images = images.selected(images.labelled)
    return images


def _statistics(config: PoseTraining, posed: list[PosedImages]) -> PoseStatistics:
    """How translations are normalised: as in the first run of this training, or in the weights that it starts from.

    They are kept in `config.out`, with a mark of the poses: going on with other data would mix two worlds.
    """
    if config.weights is not None:
        metadata = checkpoints.read_metadata(config.weights)
        if "mean" not in metadata:
            raise ValueError(f"{config.weights}: not the weights of a pose network: it holds no statistics")
        return PoseStatistics(tuple(metadata["mean"]), tuple(metadata["std"]))
    T = np.concatenate([images.T_world_camera for images in posed])
    statistics = PoseStatistics() if config.metric else PoseStatistics.of(T)
    mark = hashlib.sha256(np.ascontiguousarray(T.round(6)).tobytes()).hexdigest()[:16]
    path = Path(config.out) / "statistics.json"
    if path.is_file():
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            first, known = PoseStatistics(tuple(kept["mean"]), tuple(kept["std"])), kept["poses"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: not the statistics of a training ({error}); remove it to compute them") from None
        if known != mark:
            raise ValueError(f"{path}: is of other poses than {config.sources[0].path} has; choose another `out`")
        if not np.allclose([first.mean, first.std], [statistics.mean, statistics.std]):
            raise ValueError(
                f"{path}: is of a training with another `metric` than {config.metric}; choose another `out`"
            )
        return first
    if distributed.rank() == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"mean": statistics.mean, "std": statistics.std, "poses": mark}
        with replacing(path) as temporary:  # other processes may be reading it
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return statistics


def _start(network: PoseModel, config: PoseTraining, posed: list[PosedImages]) -> None:
    """Give a new network the weights and the colours that the configuration names."""
    if network.reads_labels:
        colors = next(images.colors() for images in posed if images.label_set)
        network.set_colors(torch.from_numpy(np.array(colors)))
    if config.weights is not None:
        checkpoints.fill(network, checkpoints.read_tensors(config.weights), config.weights)
        return
    if config.imagenet is not None:
        network.load_imagenet(config.imagenet)
    if config.trunk is not None:
        assert isinstance(network, JointPoseNetwork)
        path = checkpoints.bundled() if config.trunk == "bundled" else Path(config.trunk)
        checkpoints.fill(network.trunk, checkpoints.read_tensors(path), path)


def _terms(config: PoseTraining, kind: type[PoseModel]) -> list[str]:
    """The names of the losses that a training may meet."""
    names: list[str] = []
    if "pose" in kind.tasks:
        prefixes = ["", *(["relative_"] if config.relative else []), *(["odometry_"] if config.unlabelled else [])]
        names += [f"{prefix}{part}" for prefix in prefixes for part in ("translation", "rotation")]
    return names + [name for name in ("segmentation", "depth") if name in kind.tasks]


def _groups(network: PoseModel, balance: nn.Module, config: PoseTraining) -> list[Group]:
    """The parameters by their rate: encoders (and the joint trunk), the rest, the weights of the terms."""
    kinds = dict.fromkeys(("encoder", "label_encoder", "trunk"), "encoder") | {"balance": "balance"}
    parts: dict[str, list[nn.Parameter]] = {"encoder": [], "head": [], "balance": []}
    for name, parameter in network.named_parameters():
        parts[kinds.get(name.split(".")[0], "head")].append(parameter)
    parts["balance"] += [p for p in balance.parameters() if p.requires_grad]
    rates = {"encoder": config.encoder_rate, "head": config.head_rate, "balance": config.head_rate}
    # weight decay, which the reference lets them have, would pull the terms' weights towards 1
    decays = {"encoder": config.weight_decay, "head": config.weight_decay, "balance": 0.0}
    return [Group(name, own, rates[name], 1, decays[name]) for name, own in parts.items() if own]
