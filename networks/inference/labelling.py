"""A teacher's labels for images: hard, as label files of our folder layout, or the mean probabilities of several."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.joint import checkpoints
from networks.joint.network import normalised
from networks.joint.refinenet import MobileRefineNet, ResNetRefineNet
from semslam.files.reading import text_of
from semslam.files.writing import replacing
from semslam.images import CorruptFrame, read_color, write_png
from semslam.labels import LABEL_SETS, LabelSet

TEACHERS = "teachers.json"  # beside the labels
SIZES = (1.0, 1.2)  # of an image that a teacher is asked about more than once
_RESNETS = {6: 50, 23: 101, 36: 152}  # by the blocks of the third layer


@dataclass(frozen=True)
class Teacher:
    """A network that labels images.

    Attributes:
        network: returns class scores (B, C, h, w), alone or first.
        label_set: the classes, which are its outputs from `first_output` on.
        input_size: (height, width) whose area images are brought to; None = `resolution` decides.
        resolution: of the images, at which the network sees them, where there is no `input_size`.
    """

    network: nn.Module
    label_set: LabelSet
    first_output: int = 0
    input_size: tuple[int, int] | None = None
    resolution: float = 1.0


def load_teacher(path: str | Path, classes: str | None = None) -> Teacher:
    """The teacher of a weights file: a joint network, or a Light-Weight RefineNet on a ResNet or MobileNet-v2.

    Args:
        classes: which of its label sets it is to use, where it has several; the first by default.

    Raises:
        ValueError: the weights are for classes of a set that is not known here (PASCAL VOC's, for example).
    """
    tensors = checkpoints.named_from(checkpoints.read_tensors(path), "clf_conv.weight")
    tensors = checkpoints.named_from(tensors, "segm.weight")
    if "clf_conv.weight" in tensors:
        blocks = len({key.split(".")[1] for key in tensors if key.startswith("layer3.")})
        if blocks not in _RESNETS:
            raise ValueError(f"{path}: a ResNet whose third layer has {blocks} blocks; known are {sorted(_RESNETS)}")
        network: nn.Module = ResNetRefineNet(_RESNETS[blocks], count := len(tensors["clf_conv.weight"]))
    elif "segm.weight" in tensors and "depth.weight" not in tensors:
        network = MobileRefineNet(count := len(tensors["segm.weight"]))
    else:
        joint, metadata = checkpoints.load(path)
        name, (first, last) = checkpoints.label_outputs(joint.num_classes, metadata, classes, path)
        size = metadata.get("input_size")
        return Teacher(joint, _known(name, last - first, path), first, None if size is None else (size[0], size[1]))
    checkpoints.fill(network, tensors, path)
    name, _ = checkpoints.label_outputs(count, {}, classes, path)
    return Teacher(network.eval(), _known(name, count, path))


def _known(name: str, count: int, path: str | Path) -> LabelSet:
    if name not in LABEL_SETS or len(LABEL_SETS[name]) != count:
        known = ", ".join(f"{set_name} ({len(classes)})" for set_name, classes in LABEL_SETS.items())
        raise ValueError(f"{path}: a teacher of {count} classes, which are none of the label sets here: {known}")
    return LABEL_SETS[name]


def label_image(teacher: Teacher, color: np.ndarray) -> np.ndarray:
    """(H, W) class ids in memory of an RGB image (H, W, 3) uint8."""
    scores = _scores(teacher, color)
    scores = F.interpolate(scores, size=color.shape[:2], mode="bilinear", align_corners=False)
    return scores[0].argmax(0).numpy().astype(teacher.label_set.dtype)


def soft_labels(teachers: Sequence[Teacher], color: np.ndarray) -> np.ndarray:
    """(h, w, C) uint8 class probabilities times 255 of an RGB image (H, W, 3) uint8, at a quarter of its size.

    The mean over the teachers, which know the same classes, and for each over the image and its mirror image in the
    sizes of `SIZES`: what they agree on they are sure of.
    """
    shape = (max(1, color.shape[0] // 4), max(1, color.shape[1] // 4))
    views: list[Tensor] = []
    for teacher in teachers:
        for size in SIZES:
            for mirrored in (False, True):
                image = np.ascontiguousarray(color[:, ::-1]) if mirrored else color
                scores = _scores(teacher, image, size)
                scores = scores.flip(-1) if mirrored else scores
                views.append(F.interpolate(scores, size=shape, mode="bilinear", align_corners=False).softmax(1))
    mean = torch.stack(views).mean(0)[0]
    return (255 * mean).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


@torch.no_grad()
def _scores(teacher: Teacher, color: np.ndarray, larger: float = 1.0) -> Tensor:
    """(1, C, h, w) of an image that the teacher sees so many times larger than it is used to."""
    height, width = color.shape[:2]
    resolution = teacher.resolution
    if teacher.input_size is not None:
        resolution = math.sqrt(teacher.input_size[0] * teacher.input_size[1] / (height * width))
    size = (max(1, round(width * resolution * larger)), max(1, round(height * resolution * larger)))
    image = torch.from_numpy(cv2.resize(color, size, interpolation=cv2.INTER_AREA))
    output = teacher.network(normalised(image[None].to(next(teacher.network.parameters()).device)))
    scores = (output[0] if isinstance(output, tuple) else output).cpu()
    return scores[:, teacher.first_output : teacher.first_output + len(teacher.label_set)]


def check_teachers(out: Path, weights: Sequence[str | Path], label_set: str, soft: bool) -> None:
    """Keep in `out` whose labels it holds, or is about to; ValueError where they are of other teachers or classes.

    Files that are there are not written again, so that labels of two teachers would be mixed.
    """
    teachers = sorted(f"{zlib.crc32(Path(path).read_bytes()):08x}" for path in weights)
    asked = {"soft": soft, "classes": label_set, "teachers": teachers}
    record = out / TEACHERS
    if record.exists():
        try:
            found = json.loads(text_of(record))
        except ValueError:
            raise ValueError(f"{record}: damaged; remove it where the labels are of the same teachers") from None
        if found != asked:
            raise ValueError(
                f"{out}: holds labels of other teachers or classes, which are not written again; name another --out"
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    with replacing(record) as temporary:
        temporary.write_text(json.dumps(asked) + "\n", encoding="ascii")


def label_folder(
    teacher: Teacher, folder: str | Path, out: str | Path, split: str | None = None
) -> Iterator[tuple[str, str | None]]:
    """Write `out`/NAME.png, in the file ids of the teacher's label set, for each image of `folder`/color.

    Yields the name of each image that had no file yet, so that a killed run goes on, and None, or what is wrong with
    an image that cannot be read.

    Args:
        split: of the folder; None = every image.
    """
    teacher.network.eval()

    def write(path: Path, color: np.ndarray) -> None:
        write_png(path, teacher.label_set.to_file_ids(label_image(teacher, color)))

    return _each_image(Path(folder), split, Path(out), ".png", write)


def soft_label_folder(
    teachers: Sequence[Teacher], folder: str | Path, out: str | Path, split: str | None = None
) -> Iterator[tuple[str, str | None]]:
    """Write `out`/NAME.npy, the `soft_labels` of each image of `folder`/color; otherwise as `label_folder`.

    Raises:
        ValueError: the teachers know different classes.
    """
    if len({teacher.label_set.name for teacher in teachers}) != 1:
        known = ", ".join(teacher.label_set.name for teacher in teachers) or "none"
        raise ValueError(f"the teachers must know the same classes; theirs are {known}")
    for teacher in teachers:
        teacher.network.eval()

    def write(path: Path, color: np.ndarray) -> None:
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, soft_labels(teachers, color))

    return _each_image(Path(folder), split, Path(out), ".npy", write)


def _each_image(
    folder: Path, split: str | None, out: Path, suffix: str, write: Callable[[Path, np.ndarray], None]
) -> Iterator[tuple[str, str | None]]:
    from sequences.images.labelled_images import open_labelled_folder

    images = open_labelled_folder(folder, split, read_truth=False)
    out.mkdir(parents=True, exist_ok=True)
    for files in images.files:
        target = out / f"{files.name}{suffix}"
        if target.is_file():
            continue
        try:
            color = read_color(files.color)
        except CorruptFrame as problem:
            yield files.name, str(problem)
            continue
        write(target, color)
        yield files.name, None
