"""PyTorch's pickled checkpoints, of which tensors, numbers, texts and containers are read and nothing is executed."""

from __future__ import annotations

import pickletools
import sys
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch

TEXT = 64  # bytes: so many at the start of a file tell whether it is text
LARGEST = 1 << 28  # bytes: of what tells how a file's tensors hang together, without their numbers
LEGACY = 5  # pickles at the start of a file in PyTorch's format of before 1.6; the numbers follow
# NumPy's numbers and arrays, which trainers keep beside the tensors: the best mIoU, the state of the random numbers.
_NUMPY: list[Any] = [
    np.dtype, *(type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "u1", "i4", "u4", "i8", "u8", "bool")),
    *((np.float64(0).__reduce__()[0], f"numpy.{module}.multiarray.scalar") for module in ("core", "_core")),
    *((np.zeros(0).__reduce__()[0], f"numpy.{module}.multiarray._reconstruct") for module in ("core", "_core")),
    np.ndarray,
]  # fmt: skip
# Modules of Python whose objects hold settings. What is of other modules of Python does not belong into a checkpoint.
_OF_SETTINGS = frozenset({"argparse", "collections", "datetime", "enum", "pathlib", "types"})
_PLAIN = frozenset(
    f"builtins.{name}"
    for name in ("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object")
    + ("range", "set", "slice", "str", "tuple")
)
# PyTorch's modules whose objects stand beside the weights; `torch.nn`'s would be the network itself.
_OF_TRAINING = ("torch.optim.", "torch.utils.", "torch.amp.", "torch.cuda.amp.")


class _PassedOver:
    """Stands for every object of a class that a trainer kept beside the tensors; what the object held is kept."""

    def __new__(cls, *_: object, **__: object) -> Any:
        return OrderedDict()


def load(path: Path) -> object:
    """The content of a checkpoint.

    Objects of other classes than PyTorch's tensors, NumPy's arrays and Python's own, as a trainer's settings
    (`argparse.Namespace`, a configuration's dict), become ordered dicts without what they are made of; their classes
    are neither imported nor called. ValueError, one line, where it holds a module of a network, or what could run
    code, and where the file is damaged.
    """
    try:
        strange = _names(path)
        refused = [name for name in strange if not _is_passed_over(name)]
        placeholders = [(_PassedOver, name) for name in strange if _is_passed_over(name)]
        with torch.serialization.safe_globals([*placeholders, *_NUMPY]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # half a file makes PyTorch raise almost anything
        if "weights_only" in str(error).lower():
            networks = [name for name in refused if name.startswith("torch.nn.")]
            others = [name for name in refused if not name.startswith(("torch.", "_codecs."))]
            named = next((f" ({name})" for name in [*networks, *others]), "")
            raise ValueError(
                f"{path}: refused, because it holds more than tensors{named} and could run code when loaded; "
                f"save its state dict alone, or as .safetensors"
            ) from error
        first = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
        raise ValueError(f"{path}: not a whole PyTorch checkpoint ({first}); copy it again") from error


def check_binary(path: Path) -> None:
    """ValueError where a file is text in place of weights: a pointer of Git LFS, or a web page that was saved."""
    with path.open("rb") as file:
        start = file.read(TEXT)
    if start.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path}: is a pointer of Git LFS; fetch the file (git lfs pull)")
    if len(start) > 4 and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start):
        begins = " ".join(start.decode("ascii").split())[:40]
        raise ValueError(f"{path}: is text that begins with {begins!r}, expected weights; download the file again")


def _is_passed_over(name: str) -> bool:
    """Whether objects of a class or function, by its full name, say nothing of the weights and are passed over."""
    module = name.partition(".")[0]
    if name in _PLAIN:
        return True
    if module == "torch":
        return name.startswith(_OF_TRAINING)
    return module in _OF_SETTINGS or module not in sys.stdlib_module_names


def _names(path: Path) -> list[str]:
    """Full names of the classes and functions that a checkpoint refers to, without those that are read as they are."""
    known = {entry[1] for entry in _NUMPY if isinstance(entry, tuple)} | {"numpy.ndarray", "collections.OrderedDict"}
    names: dict[str, None] = {}
    with path.open("rb") as file:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                inside = [entry for entry in archive.infolist() if entry.filename.endswith("data.pkl")][:1]
                if inside and inside[0].file_size > LARGEST:
                    raise ValueError(f"its structure takes {inside[0].file_size} bytes, at most {LARGEST} are read")
                pickles: list[Any] = [archive.read(entry) for entry in inside]
        else:
            file.seek(0)
            pickles = [file] * LEGACY
        for operation, argument, _ in (entry for pickled in pickles for entry in pickletools.genops(pickled)):
            if operation.name == "GLOBAL":
                names[str(argument).replace(" ", ".").replace("__builtin__.", "builtins.")] = None
    return [name for name in names if name not in known and not name.startswith(("torch._utils.", "numpy.dtype"))]
