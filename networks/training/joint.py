"""The joint network's training: `train(JointTraining(...))`.

The regimes of Nekrasov et al., Table III, are settings of it:

- fine-tuning: one source whose images have every label;
- BlitzNet's: sources with other labels beside it. A task's head steps with each batch that holds its labels;
- UberNet's: the same with `task_examples` 10 and `shared_examples` 30. Gradients accumulate, and parameters step once
  so many examples have concerned them;
- theirs: a teacher writes labels for the images that lack them (`networks.inference.labelling`), then a training on all
  of them, then one from its `weights` on the first source alone, with a tenth of the rates.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from networks import distributed
from networks.augmentation import Augmentation, Sample, augmented, covered
from networks.joint import checkpoints
from networks.joint.encoders import ENCODERS
from networks.joint.imagenet import start_mobilenet
from networks.joint.network import TASKS, JointNetwork, fit_decoder
from networks.losses import (
    FixedWeights,
    UncertaintyWeights,
    cross_entropy,
    inverse_huber,
    lovasz_softmax,
    negative_dot,
    soft_cross_entropy,
)
from networks.training import device_views
from networks.training.data import Samples, Source, camera_of, class_weights, collated, outputs_by_set
from networks.training.loop import Loop, device_of, run
from networks.training.optimisation import Group
from networks.training.order import drawn_place
from networks.training.validation import scored
from semslam.config import Count, Natural, NotNegative, Positive, Range, check_choices, check_ranges

LEAST_COVERED = 0.5  # of a view, by the image

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """A part of a training, up to a share of its length."""

    until: Annotated[float, Range(0, 1, open=True)] = 1.0  # share of the training at which the next stage begins
    crop: tuple[Count, Count] = (350, 350)  # pixels: height, width
    scale: tuple[Positive, Positive] = (0.5, 2.0)  # range of the random zoom
    # input pixels for one output pixel; 8 leaves out the decoder's finest level: 1.7 times faster
    stride: Literal[4, 8] = 4

    def __post_init__(self) -> None:
        check_choices(self, "stages")
        check_ranges(self, "stages")
        if self.scale[0] > self.scale[1]:
            raise ValueError(
                f"`stages.scale` is {self.scale[0]:g} to {self.scale[1]:g}; expected the smaller one first"
            )


@dataclass(frozen=True)
class JointTraining:
    """Everything that decides a training of the joint network."""

    out: str  # folder of the checkpoints and the log
    sources: tuple[Source, ...]  # sets of images to learn from
    validation: Source
    num_classes: Annotated[int, Range(1, 255)] = 40  # outputs of the segmentation head
    tasks: tuple[str, ...] = ("segmentation", "depth")  # segmentation, depth, normals
    backbone: str = "mobilenet_v2"  # the encoder: mobilenet_v2 | efficientnet_lite2 (a teacher's)
    encoder: str | None = None  # ImageNet weights to start from: a folded .npz, or a state dict
    weights: str | None = None  # weights of the whole network to start from
    resolution: Positive = 1.0  # scale of the stored images at which the network works
    stages: tuple[Stage, ...] = (Stage(),)  # one after the other: sizes of crops and ranges of zoom
    batch: Count = 8  # images: in a step, of all processes together
    color: NotNegative = 0.2  # strength of the colour jitter; 0 = none
    # who makes random views: processor (a step ahead) | device (images lie there) | auto: the GPU
    views: Literal["auto", "processor", "device"] = "auto"
    encoder_rate: NotNegative = 1e-4  # learning rate of the encoder
    decoder_rate: NotNegative = 5e-4  # learning rate of the decoder and the heads
    normals_rate_factor: NotNegative = 10.0  # factor on the learning rate of the head of normals
    weight_decay: NotNegative = 1e-2  # of the optimiser
    frozen_layers: Natural = 0  # encoder layers, from the image, that keep their weights
    learned: tuple[str, ...] | None = None  # the only parameters that are trained, by how their names begin; null = all
    task_examples: Count = 1  # images: with a task's labels between two steps of its head (UberNet)
    shared_examples: Count = 1  # images: between two steps of the parameters that tasks share (UberNet)
    label_smoothing: Annotated[float, Range(0, 0.9)] = 0.0  # share of the truth that is spread over all classes
    lovasz: NotNegative = 0.0  # weight of the Lovasz-softmax loss, added to the cross-entropy
    lovasz_stride: Count = 1  # of its outputs' pixels, both ways: it sorts all of them, which takes long on a GPU
    teachers: tuple[str, ...] = ()  # weights of networks that say, of each view, what they see in it
    distillation: NotNegative = 0.0  # weight of the losses against what teachers, or a teacher's soft labels, say
    compiled: bool = False  # fuse the network's operations by torch.compile: a minute at the start, for GPUs
    class_balance: NotNegative = 0.0  # power p of a class's weight (its share of the pixels)^-p; 0 = all alike
    task_weights: dict[str, NotNegative] | None = None  # of the tasks' losses; null = 0.5 each
    learned_task_weights: bool = False  # weigh tasks by learned uncertainty (Kendall et al.) instead
    loop: Loop = field(default_factory=Loop)  # how long, and by which rule

    def __post_init__(self) -> None:
        check_choices(self, "")
        check_ranges(self, "")
        if not self.sources:
            raise ValueError("sources is empty; name at least one set of labelled images")
        if self.batch % distributed.world():
            raise ValueError(f"batch is {self.batch}; expected a multiple of {distributed.world()} processes")
        taught = next((source for source in self.sources if source.soft_labels is not None), None)
        if taught is None and not self.teachers and self.distillation > 0:
            raise ValueError(
                f"distillation is {self.distillation:g}, but there are no teachers, and no source has soft_labels"
            )
        if taught is not None and self.distillation <= 0:
            raise ValueError(f"{taught.path}: soft_labels are learned from with distillation above 0, it is 0")
        if self.teachers and self.distillation <= 0:
            raise ValueError(f"{self.teachers[0]}: teachers are learned from with distillation above 0, it is 0")
        if self.teachers and taught is not None:
            raise ValueError(f"{taught.path}: has soft_labels, and teachers look at each view; choose one of them")
        if self.weights is not None and self.encoder is not None:
            raise ValueError("weights are those of the whole network, the encoder's too; leave out weights or encoder")
        if self.learned == ():
            raise ValueError("learned is empty; leave it out to train all parameters")
        if self.backbone not in ENCODERS:
            raise ValueError(f"backbone is {self.backbone!r}; known are {', '.join(ENCODERS)}")
        self._check_outputs()
        self._check_stages()
        self._check_tasks()

    def _check_outputs(self) -> None:
        used = sum(end - first for first, end in self.outputs.values())
        taught = self.weights is not None or self.distillation > 0  # then the others mean something all the same
        if 0 < used < self.num_classes and not taught:
            raise ValueError(f"num_classes is {self.num_classes}; {' and '.join(self.outputs)} have {used} classes")

    def _check_stages(self) -> None:
        if not self.stages:
            raise ValueError("stages is empty; leave it out for the usual one")
        for before, stage in pairwise(self.stages):
            if stage.until <= before.until:
                raise ValueError(f"`stages.until` is {stage.until:g} after {before.until:g}; expected it to increase")

    def _check_tasks(self) -> None:
        if self.tasks not in (TASKS[:2], TASKS):
            raise ValueError(
                f"`tasks` is {', '.join(self.tasks)}; expected {', '.join(TASKS[:2])} or {', '.join(TASKS)}"
            )
        if self.task_weights is not None and self.learned_task_weights:
            raise ValueError(
                "`task_weights` are given, and `learned_task_weights` replaces them; leave one of them out"
            )
        if self.task_weights is not None and set(self.task_weights) != set(self.tasks):
            raise ValueError(
                f"`task_weights` has {', '.join(self.task_weights) or 'nothing'}; expected {', '.join(self.tasks)}"
            )

    @property
    def outputs(self) -> dict[str, tuple[int, int]]:
        """The network's outputs for the classes of each label set: the first, and the one after the last."""
        return outputs_by_set((*self.sources, self.validation), self.num_classes)


def train(config: JointTraining, report: Callable[[dict[str, float]], None] | None = None) -> dict[str, float]:
    """Train as `config` says, or go on where a killed training stopped; returns the last validation's figures.

    Writes to `config.out` what `networks.training.loop.run` writes, and at the end `network.safetensors`.

    Args:
        report: called with each row of the log.
    """
    with distributed.process_group():
        validation = Samples(config.validation, config.num_classes, "normals" in config.tasks)
        focal = validation.camera.fx  # the network's
        sets = [Samples(source, config.num_classes, "normals" in config.tasks, focal) for source in config.sources]
        objective = JointObjective(config, sets, validation)
        figures = run(objective, config.loop, config.out, report)
        if distributed.rank() == 0:
            metadata = _metadata(objective) | {"figures": figures}
            checkpoints.save(f"{config.out}/network.safetensors", objective.network, metadata)
        return figures


class JointLearner(nn.Module):
    """The network with its losses: a batch in, the loss out."""

    class_weights: Tensor | None

    def __init__(
        self, network: JointNetwork, balance: nn.Module, weights: Tensor | None, config: JointTraining
    ) -> None:
        super().__init__()
        self.network, self.balance, self.config = network, balance, config
        self.register_buffer("class_weights", weights)
        self.stride = 4  # of the outputs that were learned from last
        # methods, because modules would become parts of this one, and be kept twice
        self._outputs = torch.compile(network.forward) if config.compiled else network.forward
        self._teachers: list[Callable[..., tuple[Tensor, ...]]] = []
        device = device_of(config.loop.device)
        for path in config.teachers:  # not a part of this module: teachers are neither trained nor kept with it
            teacher = checkpoints.load(path, config.num_classes)[0].requires_grad_(False)
            teacher = teacher.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            self._teachers.append(torch.compile(teacher) if config.compiled else teacher)

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor], dict[str, int]]:
        self.stride = batch["stride"]
        outputs = dict(zip(self.network.tasks, self._outputs(batch["image"], self.stride), strict=True))
        taught = self._taught(batch["image"])
        counts = _of_all_processes(batch["examples"], batch["image"].device)
        examples = {f"head_{task}": n for task, n in counts.items() if task in outputs}
        losses: dict[str, Tensor] = {}
        if examples["head_segmentation"]:
            losses["segmentation"] = self.segmentation_loss(outputs["segmentation"].float(), batch)
        if examples["head_depth"]:
            depth = batch["depth"]
            losses["depth"] = inverse_huber(outputs["depth"][:, 0].float(), depth, depth > 0)
        if taught:
            share = self.config.distillation
            if "segmentation" in losses:
                probabilities = taught[0] * batch["taught"][:, None, None, None]
                losses["segmentation"] += share * soft_cross_entropy(outputs["segmentation"].float(), probabilities)
            everywhere = torch.ones_like(taught[1], dtype=torch.bool)
            losses["depth"] += share * inverse_huber(outputs["depth"][:, 0].float(), taught[1], everywhere)
        if examples.get("head_normals"):
            normals = batch["normals"]
            valid = normals.abs().sum(1) > 0
            losses["normals"] = negative_dot(outputs["normals"].float(), normals, valid)
        if not losses:
            raise ValueError("a batch without any label; leave images out that have neither labels nor depth")
        everyone = len(batch["image"]) * distributed.world()
        examples |= dict.fromkeys(("encoder", "decoder", "balance"), everyone)
        return self.balance(losses), {task: loss.detach() for task, loss in losses.items()}, examples

    @torch.no_grad()
    def _taught(self, image: Tensor) -> tuple[Tensor, Tensor] | None:
        """The teachers' mean probabilities (B, C, h, w) and mean depth (B, h, w); None without teachers."""
        if not self._teachers:
            return None
        said = [teacher(image, self.stride) for teacher in self._teachers]
        probabilities = torch.stack([scores.float().softmax(1) for scores, *_ in said]).mean(0)
        return probabilities, torch.stack([depth[:, 0].float().abs() for _, depth, *_ in said]).mean(0)

    def segmentation_loss(self, scores: Tensor, batch: dict[str, Any]) -> Tensor:
        config, labels = self.config, batch["segmentation"]
        loss = cross_entropy(scores, labels, self.class_weights, config.label_smoothing)
        if config.lovasz > 0:
            cells = (..., slice(None, None, config.lovasz_stride), slice(None, None, config.lovasz_stride))
            loss = loss + config.lovasz * lovasz_softmax(scores[cells], labels[cells])
        if config.distillation > 0 and not config.teachers:  # what teachers say is added in `forward`
            # a process whose images have none takes part, too: the mean is over those of all processes
            soft = batch.get("soft_labels", torch.zeros_like(scores))
            loss = loss + config.distillation * soft_cross_entropy(scores, soft)
        return loss


class JointObjective:
    """Labelled images for a joint network (an `Objective`)."""

    measure = "score"
    steady = True

    def __init__(self, config: JointTraining, sets: Sequence[Sequence[Sample]], validation: Sequence[Sample]) -> None:
        self.config, self.sets, self.validation = config, sets, validation
        _tell_padding(config, sets)
        self.recipe = asdict(config)
        # also with `views` on the device the processor makes the batch that the decoder is fitted to
        self.on_device: device_views.DeviceSamples | None = None
        torch.manual_seed(config.loop.seed)
        network = JointNetwork(config.num_classes, config.tasks, ENCODERS[config.backbone])
        if config.weights is not None:
            checkpoints.fill(network, checkpoints.read_tensors(config.weights), config.weights)
        else:
            if config.encoder is not None:
                start_mobilenet(network, config.encoder)
            fit_decoder(network.eval(), self._batch(0, 0.0, share=slice(None))["image"])
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        weights = None
        if config.class_balance > 0:
            samples = [sample for images in sets for sample in images]
            weights = class_weights(samples, config.num_classes, config.class_balance)
        balance: nn.Module = FixedWeights(config.task_weights or dict.fromkeys(config.tasks, 0.5))
        if config.learned_task_weights:
            balance = UncertaintyWeights(config.tasks)
        device = device_of(config.loop.device)
        in_memory = all(source.in_memory for source in config.sources)
        on_device = config.views == "device" or (config.views == "auto" and device.type == "cuda" and in_memory)
        self.on_device = device_views.DeviceSamples(sets, device) if on_device else None
        self.learner = JointLearner(self.network, balance, weights, config)
        self.groups = _groups(self.network, balance, config)

    def batch(self, step: int, progress: float) -> dict[str, Any]:
        return self._batch(step, progress, share=slice(distributed.rank(), None, distributed.world()))

    def _batch(self, step: int, progress: float, share: slice) -> dict[str, Any]:
        """The images of a step, or this process's share of them."""
        config = self.config
        stage = next((s for s in config.stages if progress < s.until), config.stages[-1])
        view = Augmentation(stage.crop, stage.scale, config.resolution, color=config.color)
        seed = config.loop.seed
        positions = range(step * config.batch, (step + 1) * config.batch)[share]
        places = [drawn_place([len(samples) for samples in self.sets], p, seed) for p in positions]
        rngs = [np.random.default_rng([seed, 2, p]) for p in positions]
        if self.on_device is not None:
            parts = self.on_device.views(places, rngs, view)
        else:
            seen = [augmented(self.sets[which][i], rng, view) for (which, i), rng in zip(places, rngs, strict=True)]
            parts = [device_views.part_of(number, sample) for number, sample in enumerate(seen)]
        batch = collated(parts, stage.stride)
        if config.teachers:  # they tell depth of every image, and classes where the source has these to be learned
            classes = torch.tensor(["segmentation" in config.sources[which].tasks for which, _ in places])
            batch["taught"] = classes.to(batch["image"].device)
            batch["examples"] |= {"segmentation": int(classes.sum()), "depth": len(places)}
        return batch

    def validate(self, network: nn.Module) -> dict[str, float]:
        outputs = self.config.outputs.get(self.config.validation.classes)
        assert isinstance(network, JointNetwork)
        figures = scored(network, self.validation, self.config.resolution, self.learner.stride, outputs)
        # one point of mIoU counts as much as one centimetre or one degree
        angle = figures.get("normal_mean_deg", 0.0) / 100
        figures["score"] = figures.get("miou", 0.0) - figures.get("rmse", 0.0) - angle
        return figures


def _tell_padding(config: JointTraining, sets: Sequence[Sequence[Sample]]) -> None:
    """Warns of views that show less of an image than of the padding around it."""
    for source, samples in zip(config.sources, sets, strict=True):
        height, width = samples[0].color.shape[:2]
        for stage in config.stages:
            share = covered((height, width), Augmentation(stage.crop, stage.scale, config.resolution))
            if share < LEAST_COVERED:
                size, crop = f"{width}x{height}", f"{stage.crop[1]}x{stage.crop[0]}"
                logger.warning(
                    "%s: %.0f %% of the usual view is padding: images of %s are too small for `stages.crop` (%s) at "
                    "resolution %g and zoom %g to %g", source.path, 100 - 100 * share, size, crop, config.resolution,
                    *stage.scale,
                )  # fmt: skip


def _metadata(objective: JointObjective) -> dict[str, Any]:
    """What running the network needs to know of its training."""
    config, height, width = objective.config, *objective.validation[0].color.shape[:2]
    size = [round(height * config.resolution), round(width * config.resolution)]
    return {
        "class_set": "+".join(config.outputs),
        "label_sets": {name: list(outputs) for name, outputs in config.outputs.items()},
        "input_size": size,
        "focal": camera_of(config.validation, width, height)[0].fx * config.resolution,
        "recipe": objective.recipe,
    }


def _of_all_processes(examples: dict[str, int], device: torch.device) -> dict[str, int]:
    """How many images of a step have each task's truth: every process must agree on which tasks a batch has."""
    if distributed.world() == 1:
        return examples
    counts = torch.tensor([examples[task] for task in TASKS], device=device)
    return dict(zip(TASKS, map(int, distributed.summed(counts).tolist()), strict=True))


def _groups(network: JointNetwork, balance: nn.Module, config: JointTraining) -> list[Group]:
    """The parameters by their rate and rhythm: encoder, decoder, one head a task, learned task weights."""
    frozen = {f"layer{number}" for number in range(1, config.frozen_layers + 1)}
    heads = {id(p): task for task in network.tasks for p in network.task_parameters(task)}
    parameters: dict[str, list[nn.Parameter]] = {}
    movable = [name for name, _ in network.named_parameters() if name.split(".")[0] not in frozen]
    for beginning in config.learned or ():
        if not any(name.startswith(beginning) for name in movable):
            known = ", ".join(dict.fromkeys(name.split(".")[0] for name in movable))
            raise ValueError(
                f"no parameter that is not frozen begins with {beginning!r} (`learned`); known are {known}"
            )
    for name, parameter in network.named_parameters():
        layer = name.split(".")[0]
        if layer in frozen or (config.learned is not None and not name.startswith(config.learned)):
            parameter.requires_grad_(False)
        elif id(parameter) in heads:
            parameters.setdefault(f"head_{heads[id(parameter)]}", []).append(parameter)
        else:
            parameters.setdefault("encoder" if layer.startswith("layer") else "decoder", []).append(parameter)
    groups = []
    for name, own in parameters.items():
        rate = config.encoder_rate if name == "encoder" else config.decoder_rate
        rate *= config.normals_rate_factor if name == "head_normals" else 1.0
        every = config.task_examples if name.startswith("head_") else config.shared_examples
        groups.append(Group(name, own, rate, every, config.weight_decay))
    if learned := list(balance.parameters()):
        groups.append(Group("balance", learned, config.decoder_rate, config.shared_examples))
    return groups
