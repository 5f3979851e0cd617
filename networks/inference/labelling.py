"""A teacher's labels for images that lack them: hard labels, written as the label files of our folder layout."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from networks.joint import checkpoints
from networks.joint.network import normalised
from networks.joint.refinenet import MobileRefineNet, ResNetRefineNet
from semslam.images import read_color, write_png

_RESNETS = {6: 50, 23: 101, 36: 152}  # by the blocks of the third layer


def load_teacher(path: str | Path) -> tuple[nn.Module, tuple[int, int] | None]:
    """The network of a weights file, and the image size (height, width) that it was trained for, if the file says so.

    A joint network, or a Light-Weight RefineNet with ResNet-50, -101, -152 or MobileNet-v2 as released.
    """
    tensors = checkpoints.read_tensors(path)
    if "clf_conv.weight" in tensors:
        blocks = len({key.split(".")[1] for key in tensors if key.startswith("layer3.")})
        if blocks not in _RESNETS:
            raise ValueError(f"{path}: a ResNet whose third layer has {blocks} blocks; known are {sorted(_RESNETS)}")
        network: nn.Module = ResNetRefineNet(_RESNETS[blocks], len(tensors["clf_conv.weight"]))
    elif "segm.weight" in tensors and "depth.weight" not in tensors:
        network = MobileRefineNet(len(tensors["segm.weight"]))
    else:
        joint, metadata = checkpoints.load(path)
        size = metadata.get("input_size")
        return joint, None if size is None else (int(size[0]), int(size[1]))
    checkpoints.fill(network, tensors, path)
    return network.eval(), None


@torch.no_grad()
def label_image(network: nn.Module, color: np.ndarray, resolution: float = 1.0) -> np.ndarray:
    """(H, W) uint8 0-based class ids of an RGB image (H, W, 3) uint8, by a joint or single-task network."""
    height, width = color.shape[:2]
    size = (round(width * resolution), round(height * resolution))
    image = torch.from_numpy(cv2.resize(color, size, interpolation=cv2.INTER_AREA))
    output = network(normalised(image[None].to(next(network.parameters()).device)))
    scores = (output[0] if isinstance(output, tuple) else output).cpu()
    scores = F.interpolate(scores, size=(height, width), mode="bilinear", align_corners=False)
    return scores[0].argmax(0).to(torch.uint8).numpy()


def label_folder(
    network: nn.Module,
    folder: str | Path,
    out: str | Path,
    resolution: float = 1.0,
    names: str | None = None,
    input_size: tuple[int, int] | None = None,
    report: Callable[[str], None] | None = None,
) -> int:
    """Write `out`/NAME.png (1-based ids) for each image of `folder`/color; returns how many were written.

    Images that have a file already are left alone, so that a killed run goes on.

    Args:
        resolution: of the images, at which the network sees them.
        names: a split of the folder; None = every image.
        input_size: (height, width) whose area the network sees images at, in place of `resolution`.
        report: called with the name of each image that was labelled.
    """
    from sequences.images.labelled_images import open_labelled_folder

    images = open_labelled_folder(folder, names, read_truth=False)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    network.eval()
    written = 0
    for files in images.files:
        target = out / f"{files.name}.png"
        if target.is_file():
            continue
        color = read_color(files.color)
        if input_size is not None:
            resolution = math.sqrt(input_size[0] * input_size[1] / (color.shape[0] * color.shape[1]))
        write_png(target, label_image(network, color, resolution) + np.uint8(1))
        written += 1
        if report is not None:
            report(files.name)
    return written
