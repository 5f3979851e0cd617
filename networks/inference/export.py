"""Networks as ONNX files for the other engines, made when first needed and kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from networks.inference.folding import for_export
from networks.joint.encoders import MEAN, STD
from semslam.files.writing import private_folder, replacing

_FORMAT = 4  # raised when the exported graph changes, so that old files are not used
_OPSET = 17


class FromImage(nn.Module):
    """The network with the ends that callers want: uint8 RGB (1, H, W, 3) in, float32 (1, h, w, C) out.

    Normalising inside saves a pass over the image; channels last is the order of images.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", 255 * torch.tensor(MEAN))
        self.register_buffer("scale", 1 / (255 * torch.tensor(STD)))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        image = image.permute(0, 3, 1, 2).float()  # first: engines broadcast over whole planes faster
        outputs = self.network((image - self.mean.view(1, 3, 1, 1)) * self.scale.view(1, 3, 1, 1))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return tuple(output.permute(0, 2, 3, 1) for output in outputs)


def cache_folder() -> Path:
    """Where derived files are kept: $SEMSLAM_CACHE, else the platform's cache folder for this user.

    That is $XDG_CACHE_HOME/semslam or ~/.cache/semslam on Linux, ~/Library/Caches/semslam on macOS and
    %LOCALAPPDATA%/semslam/Cache on Windows; a temporary folder where that cannot be written.
    """
    if chosen := os.environ.get("SEMSLAM_CACHE"):
        folder = Path(chosen).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    if sys.platform == "win32":
        folder = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "semslam" / "Cache"
    elif sys.platform == "darwin":
        folder = Path.home() / "Library" / "Caches" / "semslam"
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "semslam"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:  # a read-only home
        return private_folder("semslam")


def content_hash(network: nn.Module) -> str:
    """Names a network by its architecture, every weight, and the exporter that is used."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{_FORMAT} {_OPSET} {torch.__version__} {network}".encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def onnx_file(network: nn.Module) -> Path:
    """The network as an ONNX file that takes images of any size; exported unless the cache has it (3 s).

    Inputs and outputs are those of `FromImage`. The axes "height" and "width" of the input are free.
    """
    path = cache_folder() / f"{content_hash(network)}.onnx"
    if path.is_file():
        return path
    wrapped = FromImage(for_export(network)).eval()
    outputs = [f"output{i}" for i in range(len(wrapped(torch.zeros(1, 64, 96, 3, dtype=torch.uint8))))]
    with replacing(path) as temporary, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter that needs no further package calls itself old
        torch.onnx.export(
            wrapped,
            (torch.zeros(1, 64, 96, 3, dtype=torch.uint8),),
            temporary,
            dynamo=False,
            opset_version=_OPSET,
            input_names=["image"],
            output_names=outputs,
            dynamic_axes={"image": {1: "height", 2: "width"}, **{name: {1: "h", 2: "w"} for name in outputs}},
        )
    return path
