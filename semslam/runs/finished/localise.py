"""Images, or a new recording, found in the map of a finished run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from semslam.atomic import replacing
from semslam.camera import Camera
from semslam.frame import Frame, Observation
from semslam.poses import moved_by
from semslam.rendering.cameras import draw_cameras_in_map
from semslam.rendering.splatting import painted, render
from semslam.runs.config import RunConfig
from semslam.runs.folder import RunFolder
from semslam.runs.progress import Progress
from semslam.runs.recording import recorded_camera
from semslam.tracking.localisation import Localisation, Localiser, without_depth
from semslam.tracking.places import Places
from semslam.trajectory import Trajectory, tum_lines


@dataclass(frozen=True, eq=False)
class LocalisedFrame:
    """What became of one image."""

    name: str
    timestamp: float  # seconds, as recorded
    found: Localisation  # its pose is in the world


class FinishedMap:
    """The map of a run, with places to find cameras in it."""

    def __init__(self, run: str | Path, moved_to: str | None = None) -> None:
        """moved_to: where the run's recording is now; it is read only for a run of a version that kept no places.

        FileNotFoundError where there is no run, ValueError where its files are damaged or it shows no place.
        """
        self.folder = RunFolder.open(run)
        self.config, state = self.folder.load_config(), self.folder.load_state()
        self.state = state
        self.surfels, self.progress = self.folder.load_map(state), Progress.from_state(state)
        self.places = Places()
        self.places.restore({k.removeprefix("places_"): v for k, v in state.items() if k.startswith("places_")})
        main = self.progress.parts[0]
        earlier = {index for index in self.places.indices if index < 0 and main == 0}  # of runs that this one extends
        self.places.keep(earlier | set(self.progress.frames_of(main)))
        if not len(self.places):
            self._look_around(moved_to)
        if not len(self.places):
            raise ValueError(f"{run}: its map shows no place to find a camera by; make the run again")

    @property
    def camera(self) -> Camera | None:
        """That of the run's recording; None where an earlier version did not keep it."""
        kept = self.folder.load_recording()
        return None if kept is None else recorded_camera(json.loads(str(kept)))

    def localiser(self) -> Localiser:
        """To find images of one camera, by the sensor's noise as the run measured it."""
        slam = self.config.slam
        if self.progress.noise is not None:
            noise, quadratic = self.progress.noise
            registration = replace(slam.tracking.registration, noise=noise, noise_quadratic=quadratic)
            slam = replace(slam, tracking=replace(slam.tracking, registration=registration))
        return Localiser(self.surfels, self.places, slam.fusion, slam.tracking)

    def open_query(self, query: RunConfig) -> Any:
        """The `sequences.Sequence` of an image, a folder of images or a recording. Images whose camera nothing tells
        are taken to be of the run's."""
        from sequences import open_sequence
        from sequences.selected import selected

        options = {"depth_scale": query.depth_scale, "fov": query.fov}
        found = open_sequence(query.sequence, query.kind, camera=query.camera, **options)
        if not found.camera.focal_known:
            if self.camera is None:
                raise ValueError(f"{query.sequence}: nothing says what camera took it; name it with `camera` or `fov`")
            found = open_sequence(query.sequence, query.kind, camera=self.camera, **options)
        return selected(found, query.start, query.frames, query.every)

    def locate(self, sequence: Any, depth: bool = True) -> Iterator[LocalisedFrame]:
        """Look for every frame of a sequence, each by itself. depth: use it where there is any."""
        localiser = self.localiser()
        for i in range(len(sequence)):
            name, time = sequence.name_of(i), float(sequence.timestamps[i])
            try:
                frame = sequence[i]
            except (ValueError, OSError) as error:
                yield LocalisedFrame(name, time, Localisation(None, reason=f"unreadable: {error}"))
                continue
            found = localiser.locate(frame if depth else without_depth(frame))
            if found.T_world_camera is not None:
                found = replace(found, T_world_camera=moved_by(found.T_world_camera, self.surfels.world_origin))
            yield LocalisedFrame(name, time, found)

    def _look_around(self, moved_to: str | None) -> None:
        """Make the places of a run that kept none: from its recording or, without that, from pictures of its map."""
        cloud = self.surfels.cloud()
        try:
            sequence = self.folder.open_sequence(moved_to)
            camera = sequence.camera
        except (ValueError, OSError):
            if moved_to is not None:
                raise
            sequence, camera = None, self.camera
        if camera is None or not len(cloud):
            return
        for index, T in self.progress.posed().items():
            if not self.places.is_new(T):
                continue
            seen = render(cloud, camera, T)
            frame = sequence.readable(index) if sequence is not None else None
            color = frame.color if frame is not None else painted(seen, cloud.colors, (0, 0, 0))
            depth = np.where(np.isfinite(seen.depth), seen.depth, np.float32(0))
            self.places.see(Observation(Frame(index, 0.0, color, camera), camera, color, depth), T)


def tum_text(frames: Sequence[LocalisedFrame]) -> str:
    """TUM lines of the frames that were found, and before each a comment with its name and what it is worth.

    Frames that were not found are comments alone.
    """
    lines = ["# timestamp tx ty tz qx qy qz qw (camera to world, metres)\n"]
    for frame in frames:
        printable = frame.name.encode("utf-8", "backslashreplace").decode("utf-8")  # file names may be any bytes
        found, name = frame.found, " ".join(printable.split())
        if found.T_world_camera is None:
            lines.append(f"# {name} not found: {found.reason}\n")
            continue
        lines.append(
            f"# {name} confidence {found.confidence:.3f} inliers {found.inliers} "
            f"std {found.std_m:.4f} m {found.std_deg:.3f} deg\n"
        )
        lines += tum_lines(Trajectory(np.array([frame.timestamp]), found.T_world_camera[None]))
    return "".join(lines)


def write_tum_text(path: str | Path, frames: Sequence[LocalisedFrame]) -> None:
    """Write `tum_text`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(tum_text(frames), encoding="utf-8")


def figures(frames: Sequence[LocalisedFrame]) -> dict[str, Any]:
    """For a JSON file: how many were found, and all that is known of each."""
    found = [frame for frame in frames if frame.found.T_world_camera is not None]
    confidence = [frame.found.confidence for frame in found]
    return {
        "images": len(frames),
        "found": len(found),
        "median_confidence": float(np.median(confidence)) if found else None,
        "frames": [{"name": frame.name, "timestamp": frame.timestamp, **vars(frame.found)} for frame in frames],
    }


def draw(path: str | Path, finished: FinishedMap, frames: Sequence[LocalisedFrame]) -> None:
    """Write a picture of the map with the cameras that were found in it."""
    origin = finished.surfels.world_origin
    found = [f.found.T_world_camera for f in frames if f.found.T_world_camera is not None]
    cameras = moved_by(np.array(found).reshape(-1, 4, 4), -origin)
    confidence = np.array([f.found.confidence for f in frames if f.found.T_world_camera is not None])
    cloud, labels = finished.folder.load_cloud()
    draw_cameras_in_map(path, cloud, labels, cameras, confidence)
