"""Weights in files: ours are safetensors with their description in the header; the authors' are old pickles.

Nothing in a file is ever executed: pickles are read with `weights_only=True`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from networks.joint.encoders import MEAN, STD
from networks.joint.network import TASKS, JointNetwork
from semslam.atomic import replacing

# The label sets of the paper's networks and their outputs, by the number of all: for files without a description.
_OUTPUTS: dict[int, dict[str, tuple[int, int]]] = {
    40: {"nyu40": (0, 40)},
    6: {"kitti6": (0, 6)},
    13: {"nyu13": (0, 13)},
    46: {"nyu40": (0, 40), "kitti6": (40, 46)},
}
BUNDLED = Path(__file__).parents[1] / "weights" / "joint_nyud40.safetensors"


def bundled() -> Path:
    """The weights that come with the package: 40 NYUv2 classes and depth."""
    if not BUNDLED.is_file():
        raise FileNotFoundError(f"{BUNDLED}: the bundled weights are missing; reinstall the package or pass --weights")
    return BUNDLED


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of a PyTorch pickle (a state dict, or a dict with "state_dict")."""
    return _read(Path(path))[0]


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The description in the header of a .safetensors file of ours; empty for any other weights."""
    path = _existing(path)
    if path.suffix != ".safetensors":
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return _metadata(file.metadata() or {}, path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a whole .safetensors file ({error}); copy it again") from error


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weights file")
    return path


def _metadata(header: Mapping[str, str], path: Path) -> dict[str, Any]:
    """The values of a header, each of which is JSON."""
    try:
        return {key: json.loads(value) for key, value in header.items() if key != "format"}
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: its metadata is not JSON ({error})") from error


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    path = _existing(path)
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path}: not a whole .safetensors file ({error}); copy it again") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # half a file makes PyTorch raise almost anything
        if "weights_only" in str(error).lower():
            raise ValueError(
                f"{path}: refused, because it holds more than tensors and could run code when loaded; "
                f"save its state dict alone, or as .safetensors"
            ) from error
        raise ValueError(f"{path}: not a whole PyTorch checkpoint ({_first_line(error)}); copy it again") from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(f"{path}: expected a state dict of tensors, found {type(content).__name__}")
    return {key.removeprefix("module."): value for key, value in content.items()}, {}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def load(path: str | Path | None = None, num_classes: int | None = None) -> tuple[JointNetwork, dict[str, Any]]:
    """The joint network of a weights file (default: the bundled one), in eval mode and float32, and its metadata.

    The number of classes and the tasks are read off the tensors. Metadata has at least `num_classes`, `tasks`, `mean`,
    `std`; ours also `class_set`, `input_size` (height, width of the images that it was trained on), `focal` (pixels, at
    that size), `recipe`, `figures`.

    Args:
        path: a .safetensors file of ours or one of the authors' .ckpt files.
        num_classes: refuse a file with another number of classes.
    """
    path = bundled() if path is None else Path(path)
    tensors, header = _read(path)
    if "segm.weight" not in tensors or "depth.weight" not in tensors or "layer1.0.weight" not in tensors:
        raise ValueError(f"{path}: not a joint network: no layer1, segm and depth tensors among its {len(tensors)}")
    found = tensors["segm.weight"].shape[0]
    if num_classes is not None and found != num_classes:
        raise ValueError(f"{path}: weights are for {found} classes, expected {num_classes}; choose other weights")
    module = JointNetwork(found, TASKS if "normal.weight" in tensors else TASKS[:2])
    fill(module, tensors, path)
    metadata = {"num_classes": found, "tasks": list(module.tasks), "mean": list(MEAN), "std": list(STD)}
    return module.eval(), metadata | _metadata(header, path)


def label_sets(count: int, metadata: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """The label sets of a network of `count` class outputs, and the first and last + 1 output of each."""
    if metadata.get("label_sets"):
        return {name: (int(first), int(last)) for name, (first, last) in metadata["label_sets"].items()}
    if metadata.get("class_set"):
        return {str(metadata["class_set"]): (0, count)}
    return dict(_OUTPUTS.get(count, {}))


def label_outputs(
    count: int, metadata: Mapping[str, Any], wanted: str | None = None, path: str | Path = "the weights"
) -> tuple[str, tuple[int, int]]:
    """The name of a label set, and the range (first, last + 1) of a network's `count` class outputs that is its own.

    Args:
        metadata: of the weights; those without a description are told by their number of outputs.
        wanted: which of the sets; the first by default.
        path: of the weights, for messages.
    """
    known = label_sets(count, metadata) or {wanted or f"{count} classes": (0, count)}
    name = wanted or next(iter(known))
    if name not in known:
        raise ValueError(f"{path}: these weights tell apart {' and '.join(known)} ({count} classes), not {name}")
    if known[name][1] > count:
        raise ValueError(f"{path}: these weights say that they are for {name} but have {count} classes")
    return name, known[name]


def fill(module: nn.Module, tensors: dict[str, Tensor], path: str | Path) -> None:
    """Load `tensors` into `module` strictly; the error names the first tensor that does not fit."""
    wanted = module.state_dict()
    tensors = dict(tensors)
    for key, value in wanted.items():
        if key.endswith("num_batches_tracked"):  # PyTorch before 0.4.1 did not store it
            tensors.setdefault(key, value)
    missing, unknown = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    if missing or unknown:
        example = f"lacks {missing[0]}" if missing else f"has {unknown[0]}"
        raise ValueError(
            f"{path}: not the weights of this {type(module).__name__}: {len(missing)} tensors are missing and "
            f"{len(unknown)} unknown (it {example})"
        )
    for key, value in wanted.items():
        if tensors[key].shape != value.shape:
            raise ValueError(f"{path}: {key} is {tuple(tensors[key].shape)}, expected {tuple(value.shape)}")
    module.load_state_dict(tensors)


def save(path: str | Path, module: nn.Module, metadata: dict[str, Any] | None = None, half: bool = True) -> None:
    """Write a module's tensors as .safetensors, float16 if `half`, with `metadata` (anything JSON) in the header.

    The file appears whole or not at all.
    """
    from safetensors.torch import save_file

    tensors = {
        key: (value.half() if half and value.is_floating_point() else value).contiguous()
        for key, value in module.state_dict().items()
    }
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {key: json.dumps(value) for key, value in (metadata or {}).items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, header | {"format": "pt"})
        temporary.chmod(0o644)  # the library writes files that only their owner reads
