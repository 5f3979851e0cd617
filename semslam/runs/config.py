"""Everything that decides what a run computes: config.yaml in its folder."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from semslam import config as configs
from semslam.config import Positive, Range, Share, check_choices, check_ranges
from semslam.slam import SlamConfig
from sequences import Sequence as Recording


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run computes; config.yaml in its folder."""

    sequence: str = ""  # folder or list file of the recording, or room[:OPTIONS]
    kind: str | None = None  # layout of the sequence; null = found out
    camera: str | None = None  # camera.yaml that replaces what the sequence says of its camera
    depth_scale: Positive | None = None  # units per metre: of depth images, in place of what the sequence says
    # depth camera; null = as the recording names it, or as its layout tells
    sensor: Literal["kinect", "tof", "realsense", "lidar", "survey-lidar", "stereo", "synthetic"] | None = None
    fov: Annotated[float, Range(1, 170)] | None = None  # degrees: horizontally, of a camera that nothing describes
    start: Annotated[int, Range(0)] = 0  # first frame of the sequence that is taken
    frames: Annotated[int, Range(1)] | None = None  # most frames that are taken; null = all
    every: Annotated[int, Range(1)] = 1  # frames: every so many-th one is taken
    registered: bool | None = None  # whether depth lies under colour's pixels; null = as the sequence has it
    bars: bool | None = None  # whether bars along the images' edges are cut off; null = where depth is predicted
    pose_rate: Positive | None = None  # poses per second of a pose file without times, the first at the first frame
    pose_indices: str | None = None  # START:STOP:STEP or a file: the frame of each pose of a file without times
    pose_convention: str | None = None  # how given poses are meant, such as inverted,millimetres; null = found out
    reject_poses: bool = True  # whether given poses that the images contradict are left out, or end the run
    poses: str = ""  # dataset | tracked | sfm | refined | predicted | predicted-refined | a file; empty = 1st or 2nd
    scale_from: str | None = None  # of a map from colour alone: height=M | length=M,FRAME,U,V,U,V; null = the network's
    extend: str | None = None  # folder of a finished run whose map is gone on with
    pose_weights: str | None = None  # weights of a pose network, for poses that are predicted or tracked
    hold_out: Annotated[int, Range(2)] | None = None  # frames: every n-th one is not fused but kept to judge the map by
    max_corrupt: Share = 0.1  # share of frames that may be unreadable before the run stops
    fill: bool = False  # whether parallax and the network fill the holes of a depth camera, when all frames are posed
    weights: str | None = None  # weights of the joint network; null = the bundled ones
    loops: bool = True  # whether tracked poses are corrected where the camera comes back
    engine: str | None = None  # what runs the joint network; null = the best one present
    slam: SlamConfig = field(default_factory=SlamConfig)

    def __post_init__(self) -> None:
        check_choices(self, "")
        check_ranges(self, "")

    def open_sequence(self, cut: Callable[[Recording], Recording] | None = None) -> Recording:
        """The `sequences.Sequence` that the run is of; its poses as `pose_convention` says, where they are used.

        cut: takes the bars off the whole recording, as a run did that is known; None = off as far as they are seen,
        where `bars` says so.
        """
        from semslam.doctor.poses.convention import in_convention
        from sequences import open_sequence
        from sequences.rebased import near_origin
        from sequences.recalibrated import without_bars
        from sequences.selected import selected

        whole = open_sequence(
            self.sequence,
            self.kind,
            camera=self.camera,
            depth_scale=self.depth_scale,
            registered=self.registered,
            fov=self.fov,
            hints=self.pose_hints if self.poses_of_recording else None,
        )
        # bars of the whole film: all parts of it have one camera
        whole = cut(whole) if cut else without_bars(whole) if self.cuts_bars else whole
        part = selected(whole, self.start, self.frames, self.every)
        if self.pose_convention is not None and self.poses_of_recording:
            part = in_convention(part, self.pose_convention)
        return near_origin(part)

    @property
    def cuts_bars(self) -> bool:
        """Whether bars along the images' edges are cut off."""
        return self.slam.perception.depth == "predicted" if self.bars is None else self.bars

    @property
    def poses_of_recording(self) -> bool:
        """Whether the poses that settings speak of are the recording's own, used or not, and no file's."""
        return self.poses in ("", "dataset", "tracked", "refined", "predicted", "predicted-refined", "sfm")

    @property
    def doctor(self) -> str:
        """The command that looks at the frames that are taken of the recording, opened in the same way."""
        named = {
            "--kind": self.kind,
            "--camera": self.camera,
            "--depth-scale": self.depth_scale,
            "--fov": self.fov,
            "--pose-rate": self.pose_rate,
            "--pose-indices": self.pose_indices,
            "--start": self.start or None,
            "--frames": self.frames,
            "--every": None if self.every == 1 else self.every,
        }
        words = ["semslam", "doctor", self.sequence]
        words += [word for flag, value in named.items() if value is not None for word in (flag, f"{value}")]
        if self.registered is not None:
            words.append("--registered" if self.registered else "--unregistered")
        return shlex.join(words)

    @property
    def pose_hints(self) -> Any:
        """The `sequences.pose_pairing.PoseHints` of a pose file without times; None where nothing was said."""
        from sequences.pose_pairing import PoseHints

        return PoseHints.given(self.pose_rate, self.pose_indices)


def settings_of(
    file: Path | None, options: Mapping[str, Any] | None = None, assignments: Sequence[str] = ()
) -> RunConfig:
    """The settings of a run: the defaults, changed by a YAML file, by options, by assignments, in this order.

    options: values by the dotted names of settings. assignments: such as "slam.fusion.gate=0.02".
    Raises ValueError, which names the setting, for an unknown one or a wrong value; OSError for a missing file.
    """
    config = configs.load(file, RunConfig) if file else RunConfig()
    config = configs.updated(config, options or {}, "")
    return configs.updated(config, map(configs.parsed, assignments), "--set")
