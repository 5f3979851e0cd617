"""A run as a Rerun recording: frames, what was perceived in them, poses and the map. Needs the extra `rerun`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from semslam.cloud import most_probable
from semslam.files.writing import check_suffix, replacing
from semslam.frame import evenly_spread
from semslam.images import depth_units
from semslam.labels import LabelSet
from semslam.looking.viewed import Viewed
from semslam.perception import Perception
from semslam.rendering.legend import class_color, class_name
from semslam.rendering.pictures import PATH_COLOR, printable
from semslam.runs import networks
from semslam.runs.config import RunConfig
from semslam.runs.folder import RunFolder
from semslam.runs.progress import Progress
from sequences import Sequence as Recording

IMAGES = 60  # frames whose images are kept; poses are kept of all


def load_rerun() -> tuple[Any, Any]:
    """Rerun's SDK and its blueprints; ImportError, one line, where it is not installed."""
    try:
        import rerun
        import rerun.blueprint
    except ImportError:
        raise ImportError("--rerun needs Rerun's SDK, which is optional: pip install rerun-sdk") from None
    return rerun, rerun.blueprint


def check_recording(path: Path) -> None:
    """ValueError for a name that is not that of a recording of Rerun's, ImportError where its SDK is not installed."""
    check_suffix(path, "Rerun's recordings", (".rrd",))
    load_rerun()


def write_rerun(path: str | Path, run: str | Path, viewed: Viewed) -> None:
    """Write an .rrd file. Classes have their names and colours; ids count from 1, 0 is unlabelled.

    Entities: camera (poses of all frames, and the image plane), camera/color, camera/depth, camera/classes (of at most
    60 frames, those with labels first), path, map/classes, map/colors. The timeline `frame` counts those of the
    recording. Coordinates are relative to `world_origin`, metres, of the entity map.
    """
    path = Path(path)
    check_recording(path)
    rr, blueprints = load_rerun()
    folder = RunFolder.open(run)
    config = folder.load_config()
    with replacing(path) as temporary:
        recording = rr.RecordingStream("semslam", recording_id=printable(str(run)))
        recording.set_log_time_enabled(False)  # when this file was written is of no interest
        recording.save(str(temporary), default_blueprint=_blueprint(blueprints))
        recording.log("/", _annotations(rr, viewed.label_set), static=True)
        _log_map(rr, recording, viewed)
        _log_frames(rr, recording, config, folder.open_sequence(), folder.load_progress())
        recording.flush()
        recording.disconnect()


def _blueprint(blueprints: Any) -> Any:
    """The map beside the three images; of the map's two colourings the classes'."""
    images = [blueprints.Spatial2DView(origin=f"camera/{name}", name=name) for name in ("color", "depth", "classes")]
    hidden = ["- /map/colors", "- /camera/depth", "- /camera/classes"]
    scene = blueprints.Spatial3DView(origin="/", contents=["+ /**", *hidden], name="map")
    return blueprints.Blueprint(
        blueprints.Horizontal(scene, blueprints.Vertical(*images), column_shares=[3, 1]), collapse_panels=True
    )


def _annotations(rr: Any, label_set: LabelSet) -> Any:
    ids = [255, *range(len(label_set))]
    return rr.AnnotationContext([((i + 1) % 256, class_name(label_set, i), class_color(label_set, i)) for i in ids])


def _log_map(rr: Any, recording: Any, viewed: Viewed) -> None:
    cloud = viewed.cloud
    ids = cloud.labels() + np.uint8(1)
    recording.log("map", rr.AnyValues(world_origin=cloud.world_origin), static=True)
    recording.log("map/classes", rr.Points3D(cloud.positions, radii=cloud.radii, class_ids=ids), static=True)
    recording.log("map/colors", rr.Points3D(cloud.positions, radii=cloud.radii, colors=cloud.colors), static=True)
    if lines := [path[:, :3, 3] for path in viewed.paths if len(path) > 1]:
        recording.log("path", rr.LineStrips3D(lines, colors=[PATH_COLOR], radii=0.004), static=True)


def _log_frames(rr: Any, recording: Any, config: RunConfig, sequence: Recording, progress: Progress) -> None:
    perceive = _perception(config, sequence)
    pose_of = progress.posed()
    camera = perceive.camera
    pinhole = rr.Pinhole(image_from_camera=camera.K, resolution=[camera.width, camera.height], image_plane_distance=0.2)
    recording.log("camera", pinhole, static=True)
    for index, T in pose_of.items():
        recording.set_time("frame", sequence=sequence.number_of(index))
        recording.log("camera", rr.Transform3D(translation=T[:3, 3], mat3x3=T[:3, :3]))
    chosen = evenly_spread(progress.labelled or list(pose_of), IMAGES)  # those with labels, if any have
    read = sequence.__getitem__ if config.slam.perception.labels == "truth" else sequence.read_without_labels
    for index in chosen:
        recording.set_time("frame", sequence=sequence.number_of(index))
        observation = perceive.observe(read(index), True)
        recording.log("camera/color", rr.Image(observation.color).compress(jpeg_quality=85))
        ok, encoded = cv2.imencode(".png", depth_units(observation.depth))
        assert ok
        recording.log("camera/depth", rr.EncodedDepthImage(encoded.tobytes(), media_type="image/png", meter=1000.0))
        if observation.class_probabilities is not None:
            ids = most_probable(observation.class_probabilities) + np.uint8(1)
            recording.log("camera/classes", rr.SegmentationImage(ids))


def _perception(config: RunConfig, sequence: Recording) -> Perception:
    perception = config.slam.perception
    network = None
    if "predicted" in (perception.depth, perception.labels):
        network = networks.predictor(perception.classes, config.weights, config.engine)
    return Perception(perception, sequence.camera, sequence.label_set, network)
