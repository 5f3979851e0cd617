"""Labelled images as the joint network learns from them: samples in one label space, views of them, batches."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from torch import Tensor

from networks.augmentation import Sample
from networks.joint.network import TASKS, normalised
from networks.losses import IGNORE
from networks.training.device_views import Part
from semslam.camera import Camera, same_aspect
from semslam.config import Natural, Positive, Range, check_ranges
from semslam.files.reading import contents
from semslam.frame import evenly_spread
from semslam.labels import label_set

if TYPE_CHECKING:
    from sequences.images.labelled_images import LabelledImage

LABELS_LOOKED_AT = 50  # label images of which one must have a class


@dataclass(frozen=True)
class Source:
    """A set of images and what is to be learned from it."""

    path: str  # a folder of labelled images, a list file (.txt), or the official .mat of NYUv2
    split: str | None = "train"  # of a folder (a name in it, or the path of a .txt) or of the .mat; null = all
    tasks: tuple[str, ...] = TASKS  # what to learn from it, where it has that
    classes: str = "nyu40"  # label set of its label images
    first_output: Natural = 0  # the network's output for its first class: 40 puts KITTI-6 after NYU-40
    labels: str | None = None  # folder of other label images NAME.png, such as those of a teacher
    soft_labels: str | None = None  # folder of a teacher's probabilities NAME.npy, (h, w, num_classes) uint8 of 255
    first_id: Annotated[int, Range(0, 1)] | None = None  # what label images call the first class; null = found out
    depth_scale: Positive = 1000.0  # units per metre: of its depth images
    splits: str | None = None  # the official splits.mat, for the .mat
    # pixels: fx, fy, cx, cy of the colour; null = camera.yaml's, or NYUv2's
    camera: tuple[Positive, Positive, Positive, Positive] | None = None
    in_memory: bool = True  # decode images once and keep them (1.6 to 2.5 MB each at 640x480), or read them each time

    def __post_init__(self) -> None:
        check_ranges(self, "")
        if unknown := sorted(set(self.tasks) - set(TASKS)):
            raise ValueError(f"{self.path}: unknown task {unknown[0]!r}; known are {', '.join(TASKS)}")


def outputs_by_set(sources: Iterable[Source], num_classes: int) -> dict[str, tuple[int, int]]:
    """The outputs of each label set that is learned or scored, in their order: the first, and the one after the last.

    ValueError where two sources put a set at different outputs, where two sets share some, or where there are too few.
    """
    firsts: dict[str, int] = {}
    for source in sources:
        if "segmentation" not in source.tasks:
            continue
        first = firsts.setdefault(source.classes, source.first_output)
        if source.first_output != first:
            raise ValueError(
                f"{source.path}: first_output of {source.classes} is {source.first_output} here and {first} in another "
                f"source; give all sources of a label set the same, and validation too"
            )
    outputs = {name: (firsts[name], firsts[name] + len(label_set(name))) for name in sorted(firsts, key=firsts.get)}  # type: ignore[arg-type]
    for (name, (_, end)), (following, (first, _)) in pairwise(outputs.items()):
        if first < end:
            raise ValueError(
                f"first_output of {following} is {first}, among the outputs of {name}, which end at {end}; put it there"
            )
    needed = max((end for _, end in outputs.values()), default=0)
    if needed > num_classes:
        raise ValueError(f"num_classes is {num_classes}; {' and '.join(outputs)} need {needed} outputs")
    return outputs


class Samples(Sequence[Sample]):
    """The images of a source as samples: labels as the network's outputs, normals computed where they are learned.

    Attributes:
        camera: of the colour images.
    """

    def __init__(self, source: Source, num_classes: int, normals: bool = False, focal: float | None = None) -> None:
        """
        Args:
            num_classes: outputs of the network.
            normals: compute those of the depth, where the source has these to be learned.
            focal: pixels of the stored images; depth becomes what a camera of this focal length would see, which is
                what a network that knows one camera can learn. None: as recorded. Of a source whose camera nobody
                named, which counts as NYUv2's, depth stays as it is.
        """
        if num_classes > IGNORE:
            raise ValueError(f"num_classes is {num_classes}; labels are learned as bytes, expected at most {IGNORE}")
        self.source = source
        self.normals = normals and {"normals", "depth"} <= set(source.tasks)
        self.images = open_images(source)
        self.num_classes = num_classes
        height, width = self.images[0].color.shape[:2]
        self.camera, known = camera_of(source, width, height)
        self._depth_factor = np.float32(focal / self.camera.fx if known and focal is not None else 1)
        self._kept: list[Sample] | None = None
        if source.in_memory:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                self._kept = list(pool.map(self._read, range(len(self.images))))
        self._check_labels()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        return self._kept[index] if self._kept is not None else self._read(index)

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def _check_labels(self) -> None:
        """ValueError where there are label images and none of those looked at has a class: nothing could be learned."""
        labels = [self[i].labels for i in evenly_spread(range(len(self)), LABELS_LOOKED_AT)]
        there = [image for image in labels if image is not None]
        if there and all((image == IGNORE).all() for image in there):
            raise ValueError(
                f"{self.source.path}: all pixels of the {len(there)} label images looked at are void; give labels of "
                f"{self.source.classes}, or leave segmentation out of its tasks"
            )

    def _read(self, index: int) -> Sample:
        image: LabelledImage = self.images[index]
        labels = image.labels if "segmentation" in self.source.tasks else None
        if labels is not None:
            valid = labels != label_set(self.source.classes).unlabelled
            outputs = labels.astype(np.int32) + self.source.first_output  # bytes would begin again at 0
            if valid.any() and (highest := int(outputs[valid].max())) >= self.num_classes:
                raise ValueError(
                    f"{self.source.path}: {image.name} has a label for output {highest}, the network has "
                    f"{self.num_classes} outputs; raise num_classes or change first_output"
                )
            labels = np.where(valid, outputs, IGNORE).astype(np.uint8)
        depth = image.depth if "depth" in self.source.tasks else None
        normals = self._normals(image) if self.normals else None
        depth = None if depth is None else depth * self._depth_factor
        return Sample(image.color, labels, depth, normals, self._soft_labels(image.name))

    def _soft_labels(self, name: str) -> np.ndarray | None:
        if self.source.soft_labels is None:
            return None
        path = Path(self.source.soft_labels) / f"{name}.npy"
        try:
            probabilities = np.lib.format.read_array(io.BytesIO(contents(path)), allow_pickle=False)
        except FileNotFoundError:
            raise FileNotFoundError(f"{path}: missing; `semslam label --soft` writes one for each image") from None
        except (ValueError, EOFError) as error:
            raise ValueError(f"{path}: not a whole NumPy file ({error}); write it again") from error
        if probabilities.dtype != np.uint8 or probabilities.shape[2:] != (self.num_classes,):
            found = f"{probabilities.dtype} {probabilities.shape}"
            raise ValueError(f"{path}: it holds {found}; expected uint8 (height, width, {self.num_classes})")
        return probabilities

    def _normals(self, image: LabelledImage) -> np.ndarray | None:
        from sequences.images.labelled_images import normals_of_depth

        if image.depth is None:
            return None
        (height, width), camera = image.depth.shape, self.camera
        if not same_aspect(camera.shape, image.depth.shape):
            raise ValueError(
                f"{self.source.path}: the depth of {image.name} is {width}x{height} pixels, of another shape than its "
                f"camera's {camera.width}x{camera.height}, so that normals cannot be computed; make it a source of its "
                f"own with its `camera`, or leave normals out of its tasks"
            )
        return normals_of_depth(image.depth, camera)


def open_images(source: Source) -> Sequence[LabelledImage]:
    """The labelled images that a source names."""
    from sequences.images.labelled_images import open_labelled_folder, open_labelled_list, relabelled
    from sequences.images.nyu_mat import NyuMat

    path, classes, first_id = Path(source.path), source.classes, source.first_id
    images: Any
    if path.suffix != ".mat" and (path.is_dir() or not path.suffix):
        return open_labelled_folder(  # type: ignore[return-value]
            path, source.split, classes, source.depth_scale, source.labels, first_id=first_id
        )
    if path.suffix == ".mat":
        images = NyuMat(path, source.split, source.splits, classes)
    else:
        images = open_labelled_list(path, classes, source.depth_scale, first_id)
    if source.labels is not None:
        images = relabelled(images, source.labels, classes, first_id)
    return images


def camera_of(source: Source, width: int, height: int) -> tuple[Camera, bool]:
    """The camera of a source's colour images of that size, as named or as its camera.yaml says, and whether it is
    known; else NYUv2's."""
    from sequences.images.labelled_images import NYU_CAMERA

    if source.camera is not None:
        fx, fy, cx, cy = source.camera
        return Camera(width, height, fx, fy, cx, cy), True
    recorded = recorded_camera(source.path)
    return (NYU_CAMERA, False) if recorded is None else (recorded.resized(width, height), True)


def recorded_camera(path: str | Path) -> Camera | None:
    """The camera of the camera.yaml in a folder of labelled images, or beside a list of them; None without one."""
    from sequences.recordings.folder import read_camera

    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    return read_camera(folder / "camera.yaml")[0] if (folder / "camera.yaml").is_file() else None


def collated(parts: Sequence[Part], stride: int) -> dict[str, Any]:
    """Tensors of a batch: image (B, 3, H, W); labels and depth (B, h, w), normals (B, 3, h, w) at 1 / stride.

    Where a sample has soft labels, `soft_labels` (B, C, h, w) are probabilities, all zero where there are none.

    What a sample lacks is filled with "none" (255, 0, 0); `examples` counts the samples that have each task's truth.
    """
    start = stride // 2  # the middle of each cell
    cells = (slice(None), slice(start, None, stride), slice(start, None, stride))
    size = sum(len(part.positions) for part in parts)

    def stacked(name: str, none: Tensor, every: tuple[slice, ...] = cells) -> tuple[Tensor, list[int]]:
        together = none.expand(size, *none.shape).clone()
        having = []
        for positions, samples in parts:
            images = getattr(samples, name)
            if images is not None:
                together[torch.tensor(positions, device=none.device)] = images[every]
                having += positions
        return together, having

    color = parts[0].samples.color
    shape, device = color[cells].shape[1:3], color.device
    seen, _ = stacked("color", torch.zeros_like(color[0]), (slice(None),))
    labels, labelled = stacked("labels", torch.full(shape, IGNORE, dtype=torch.uint8, device=device))
    depth, measured = stacked("depth", torch.zeros(shape, device=device))
    normals, oriented = stacked("normals", torch.zeros((*shape, 3), device=device))
    batch = {
        "image": normalised(seen),
        "segmentation": labels.long(),
        "depth": depth,
        "normals": normals.permute(0, 3, 1, 2),
        "stride": stride,
    }
    soft = next((part.samples.soft_labels for part in parts if part.samples.soft_labels is not None), None)
    if soft is not None:
        none = torch.zeros((*shape, soft.shape[3]), dtype=torch.uint8, device=device)
        probabilities, taught = stacked("soft_labels", none)
        batch["soft_labels"] = probabilities.permute(0, 3, 1, 2).float() / 255
        labelled = list({*labelled, *taught})
    batch["examples"] = {"segmentation": len(labelled), "depth": len(measured), "normals": len(oriented)}
    return batch


def class_weights(samples: Sequence[Sample], num_classes: int, power: float) -> Tensor:
    """Weights (C,) of the classes, share^-power, with a mean of 1 over the pixels; 0 for a class that never occurs."""
    counts = np.zeros(256, np.int64)
    for sample in samples:
        if sample.labels is not None:
            counts += np.bincount(sample.labels.ravel(), minlength=256)
    share = counts[:num_classes] / max(1, counts[:num_classes].sum())
    weights = np.where(share > 0, np.maximum(share, 1e-6) ** -power, 0)
    return torch.from_numpy((weights / max((weights * share).sum(), 1e-12)).astype(np.float32))
