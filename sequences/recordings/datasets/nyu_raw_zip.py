"""NYUv2's raw recordings as they are downloaded: a zip archive of scenes, read without being unpacked."""

from __future__ import annotations

import re
import zipfile
from collections import defaultdict
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from semslam.camera import Camera
from sequences.files import Archive
from sequences.recordings import nyu_raw
from sequences.recordings.decoded import DecodedSequence, Images, Rig

LAYOUT = "PART.zip with SCENE/r-<seconds>-<tick>.ppm and d-<seconds>-<tick>.pgm; of several scenes PART.zip/SCENE"
_NAME = re.compile(r"([rd])-(\d+\.\d+)-\d+\.(?:ppm|pgm)$")


def fits(path: Path) -> bool:
    archive, _ = _split(path)
    if archive is None:
        return False
    try:
        with zipfile.ZipFile(archive) as file:
            return any(_NAME.match(PurePosixPath(name).name) for name in file.namelist()[:1000])
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError):
        return False


def open_nyu_raw_zip(path: str | Path, *, camera: Camera | None = None) -> DecodedSequence:
    """Open a scene of an archive as `nyu_raw` opens its folder; ValueError lists the scenes where none is named."""
    archive, scene = _split(Path(path))
    if archive is None:
        raise ValueError(f"{path}: is no zip archive; expected {LAYOUT}")
    files = Archive(archive)
    depth, color = _listed(files, "d"), _listed(files, "r")
    scenes = sorted(depth.keys() & color.keys())
    chosen = scene or (scenes[0] if len(scenes) == 1 else "")
    if chosen not in scenes:
        raise ValueError(
            f"{archive}: holds the scenes {', '.join(scenes[:20]) or 'none'}; give one, as {archive}/SCENE"
        )
    depth_times = np.array([time for time, _ in depth[chosen]])
    color_times = np.array([time for time, _ in color[chosen]])
    of_color = nyu_raw.synchronised(depth_times, color_times)
    names = [color[chosen][i][1] for i in of_color]
    times, delays = nyu_raw.moments(color_times[of_color], depth_times)
    recorded = nyu_raw.COLOR_CAMERA if camera is None else camera
    rig = Rig(recorded, recorded.undistorted())
    return DecodedSequence(
        name=PurePosixPath(chosen).name,
        rig=rig,
        timestamps=times,
        read=partial(_read, files, list(zip(names, (name for _, name in depth[chosen]))), rig),
        decoders=2,
        depth_delays=delays,
    )


def _read(files: Archive, names: list[tuple[str, str]], rig: Rig, index: int) -> Images:
    color, depth_name = names[index]
    # As nyu_raw reads files: little-endian where a PGM's should be big-endian, and projected onto colour.
    depth = nyu_raw.projected_depth(files.units(depth_name).byteswap(), rig.camera)
    return Images(files.image(color), depth)


def _split(path: Path) -> tuple[Path | None, str]:
    """(archive, scene) of PART.zip or PART.zip/SCENE."""
    for archive in (path, *list(path.parents)[:3]):
        if archive.suffix.lower() == ".zip" and archive.is_file() and zipfile.is_zipfile(archive):
            scene = path.relative_to(archive).as_posix()
            return archive, "" if scene == "." else scene
    return None, ""


def _listed(files: Archive, kind: str) -> dict[str, list[tuple[float, str]]]:
    """(seconds, name) of the images of a kind, by scene, in the order of their names as the toolbox has them."""
    found: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for name in sorted(files.names):
        place = PurePosixPath(name)
        match = _NAME.match(place.name)
        if match and match[1] == kind:
            found[str(place.parent)].append((float(match[2]), name))
    return found
