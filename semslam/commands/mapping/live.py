"""`semslam reconstruct --live`: the camera, and what its run has of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semslam.commands.app import FLAGS

if TYPE_CHECKING:
    from sequences.live.live import LiveSequence

RECORDING = "recording"  # in the run's folder: what the camera saw, as a plain folder
OF_FILES = ("kind", "depth_scale", "registered", "start", "every", "pose_rate", "pose_indices")  # settings


def live_camera(
    device: str, out: Path, chosen: Mapping[str, Any], stop: Callable[[], bool]
) -> tuple[LiveSequence, dict[str, Any]]:
    """A camera that is switched on, and the settings of its run: those chosen, without what was only for the camera.

    stop: asked whether the recording is to end. ValueError for settings that only recordings have.
    """
    from sequences.live.devices import open_device
    from sequences.live.live import LiveSequence
    from sequences.recordings.folder import read_camera

    if wrong := [FLAGS[name] for name in OF_FILES if name in chosen]:
        raise ValueError(f"{', '.join(wrong)} is for recordings, not for --live; leave it out")
    camera = read_camera(Path(chosen["camera"]))[0] if "camera" in chosen else None
    source = open_device(device, camera, chosen.get("fov"))
    sequence = LiveSequence(source, out / RECORDING, stop=stop, frames=chosen.get("frames"))
    settings = {name: value for name, value in chosen.items() if name not in ("camera", "fov", "frames")}
    settings["sequence"] = str((out / RECORDING).absolute())
    if not sequence.has_depth:
        settings["slam.perception.depth"] = "predicted"
    return sequence, settings
