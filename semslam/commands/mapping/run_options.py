"""The options of `semslam reconstruct` that each set one setting of a run; None where an option is not given."""

from __future__ import annotations

from typing import Annotated

from semslam.camera import SENSORS
from semslam.commands.app import (
    CAMERA_FILE,
    CONVENTION,
    DEPTH_SCALE,
    ENGINE,
    EVERY,
    FOV,
    FRAMES,
    KIND,
    POSE_INDICES,
    POSE_RATE,
    REGISTERED,
    START,
    WEIGHTS,
    frames_setting,
    setting,
)

POSES = "dataset (default, if there) | tracked | sfm | refined | predicted | predicted-refined | a file."
POSE_WEIGHTS = "Weights of a pose network: for predicted poses, or to find a tracked camera that is lost."
CORRECTIONS = "Of predicted depth: all | none | noise,anchors,align,bend,edges,weights,gate,keyframes,multiview."
SCALE_FROM = "Without a depth camera: height=M above the floor | length=M,FRAME,U,V,U,V."
SENSOR = f"Depth camera: {' | '.join(SENSORS)}. Taken from the layout where that tells it; refined by tracking."
CLASSES = "nyu13 (default) | nyu40 | those of other --weights, such as kitti6."
MEMORY = "Most memory for surfels, such as 500MB; the others wait in files, and the mesh gets coarser to fit."
FILL = "Fill the depth camera's holes by parallax and the network."

EXTEND = "Folder of a finished run: go on mapping in its map, by tracking, whatever poses there are."

# the recording
Kind = Annotated[str | None, setting("kind", "--kind", KIND)]
CameraFile = Annotated[str | None, setting("camera", "--camera", CAMERA_FILE)]
DepthScale = Annotated[float | None, setting("depth_scale", "--depth-scale", DEPTH_SCALE)]
Registered = Annotated[bool | None, setting("registered", "--registered/--unregistered", REGISTERED)]
Sensor = Annotated[str | None, setting("sensor", "--sensor", SENSOR)]
Fov = Annotated[float | None, setting("fov", "--fov", FOV)]
Start = Annotated[int | None, frames_setting("start", START)]
FrameCount = Annotated[int | None, frames_setting("frames", FRAMES)]
Every = Annotated[int | None, frames_setting("every", EVERY)]

# what is done with it
Depth = Annotated[str | None, setting("slam.perception.depth", "--depth", "sensor (default) | predicted")]
Labels = Annotated[str | None, setting("slam.perception.labels", "--labels", "predicted (default) | truth | none")]
Fill = Annotated[bool | None, setting("fill", "--fill/--no-fill", FILL)]
Poses = Annotated[str | None, setting("poses", "--poses", POSES)]
PoseRate = Annotated[float | None, setting("pose_rate", "--pose-rate", POSE_RATE)]
PoseIndices = Annotated[str | None, setting("pose_indices", "--pose-indices", POSE_INDICES)]
PoseConvention = Annotated[str | None, setting("pose_convention", "--pose-convention", CONVENTION)]
Extend = Annotated[str | None, setting("extend", "--extend", EXTEND)]
PoseWeights = Annotated[str | None, setting("pose_weights", "--pose-weights", POSE_WEIGHTS)]
ScaleFrom = Annotated[str | None, setting("scale_from", "--scale-from", SCALE_FROM)]
Classes = Annotated[str | None, setting("slam.perception.classes", "--classes", CLASSES)]
LabelEvery = Annotated[
    int | None, setting("slam.perception.label_every", "--label-every", "Frames between two labelled ones.")
]
Weights = Annotated[str | None, setting("weights", "--weights", WEIGHTS)]
Engine = Annotated[str | None, setting("engine", "--engine", ENGINE)]
Corrections = Annotated[str | None, setting("slam.corrections", "--corrections", CORRECTIONS)]
HoldOut = Annotated[int | None, setting("hold_out", "--hold-out", "Keep every n-th frame to judge the map by.")]
Loops = Annotated[
    bool | None, setting("loops", "--loops/--no-loops", "Correct tracked poses where the camera comes back.")
]
MaxSurfels = Annotated[int | None, setting("slam.map.max_surfels", "--max-surfels", "Capacity of the map.")]
Memory = Annotated[str | None, setting("slam.map.memory", "--memory", MEMORY)]
