"""Where to stand to see a whole map: up, a raised view from outside, ways around."""

from __future__ import annotations

import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.cloud import SurfelCloud
from semslam.labels import LabelSet
from semslam.rendering.splatting import render

ELEVATION = np.radians(38)  # of the viewer who sees a map from outside
AROUND = 12  # directions that are looked from
WELL_SEEN = 0.6  # of what the best direction shows
PYRAMID, ROOM = 0.12, 6.0  # metres: how deep cameras are drawn in a map that reaches so far from its middle, or less
SAMPLE = 20_000  # surfels are enough to judge a view; all of them only cost time
REACH = 1.3  # times the radius that holds nearly all of what was measured: surfels beyond it need not be in the picture


def look_at(eye: np.ndarray, target: np.ndarray, up: np.ndarray) -> np.ndarray:
    """T_world_camera of a camera at `eye` that looks at `target` (3,), metres, with `up` (3,) towards the top."""
    forward = np.asarray(target, np.float64) - eye
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, np.asarray(up, np.float64))
    if np.linalg.norm(right) < 1e-6:  # looking straight up or down: any direction is as good for the image's right
        right = np.cross(forward, np.eye(3)[np.argmin(np.abs(forward))])
    right /= np.linalg.norm(right)
    return poses.from_rotation_translation(np.column_stack([right, np.cross(forward, right), forward]), eye)


def thinned(cloud: SurfelCloud, count: int = SAMPLE) -> SurfelCloud:
    """At most `count` surfels, the same ones every time, with radii grown to cover about as much."""
    if len(cloud) <= count:
        return cloud
    chosen = np.sort(np.random.default_rng(0).choice(len(cloud), count, replace=False))
    sample = cloud.selected(chosen)
    sample.radii[:] *= np.sqrt(len(cloud) / count)
    return sample


def pyramid_depth(cloud: SurfelCloud) -> float:
    """Metres, how deep cameras are drawn as pyramids in a map: 12 cm in a room, in proportion to its reach beyond."""
    if len(cloud) == 0:
        return PYRAMID
    distance = np.linalg.norm(cloud.positions - np.median(cloud.positions, axis=0), axis=1)
    return PYRAMID * max(1.0, float(np.percentile(distance, 90)) / ROOM)


def without_remote(cloud: SurfelCloud) -> SurfelCloud:
    """Without surfels that lie far from the others and were hardly measured.

    Such as those of a ceiling at the sensor's limit, seen in passing: to show them, a picture would show the room
    small.
    """
    weight = cloud.confidence.astype(np.float64)
    if weight.sum() <= 0:
        return cloud
    distance = np.linalg.norm(cloud.positions - np.average(cloud.positions, axis=0, weights=weight), axis=1)
    order = np.argsort(distance, kind="stable")
    share = np.cumsum(weight[order]) / weight.sum()
    return cloud.selected(distance <= REACH * distance[order[np.searchsorted(share, 0.997)]])


def up_direction(
    cloud: SurfelCloud, label_set: LabelSet | None = None, trajectory: np.ndarray | None = None
) -> np.ndarray:
    """(3,) unit vector towards the ceiling.

    Taken from the surfels labelled floor where there are some, else from the surfaces that lie level when cameras
    (trajectory (N, 4, 4), T_world_camera) are held upright, else from those nearest to the y axis of the first camera.
    A small floor that upright cameras would see as a wall is a wrong label.
    """
    upright = np.array([0.0, -1.0, 0.0])
    if trajectory is not None and len(trajectory):
        upright = -np.asarray(trajectory)[:, :3, 1].mean(axis=0)
    upright /= max(float(np.linalg.norm(upright)), 1e-12)
    normals, weight = cloud.normals.astype(np.float64), cloud.radii.astype(np.float64) ** 2
    labels = cloud.labels()
    if label_set is not None:
        for name, sign in (("floor", 1.0), ("ceiling", -1.0)):
            chosen = labels == label_set.id_of(name) if name in label_set.classes else np.zeros(len(cloud), bool)
            if chosen.sum() > max(50, 0.005 * len(cloud)):
                start = np.median(normals[chosen], axis=0) * sign
                found = _mode_near(start, normals[chosen] * sign, weight[chosen])
                if trajectory is None or chosen.mean() > 0.05 or found @ upright > np.cos(np.radians(60)):
                    return found
    level = normals @ upright > np.cos(np.radians(40))
    return _mode_near(upright, normals[level], weight[level]) if level.any() else upright


def _mode_near(direction: np.ndarray, normals: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The mode of the normals nearest to a direction: a mean over a cone that narrows around itself."""
    direction = direction / max(float(np.linalg.norm(direction)), 1e-12)
    for degrees in (30, 20, 12, 8, 5, 5, 5):
        inside = normals @ direction > np.cos(np.radians(degrees))
        mean = (normals[inside] * weight[inside, None]).sum(axis=0)
        if np.linalg.norm(mean) == 0:
            break
        direction = mean / np.linalg.norm(mean)
    return direction


def level_axes(up: np.ndarray) -> np.ndarray:
    """(3, 3) rotation whose rows are two level directions and `up`: world to a frame with z towards the ceiling."""
    first = np.cross(up, np.eye(3)[np.argmin(np.abs(up))])
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(up, first), up])


def raised_direction(up: np.ndarray, azimuth: float, elevation: float) -> np.ndarray:
    """(3,) unit vector from the scene to a viewer at that azimuth and elevation, radians."""
    a, b, c = level_axes(up)
    return np.cos(elevation) * (np.cos(azimuth) * a + np.sin(azimuth) * b) + np.sin(elevation) * c


def framed(
    positions: np.ndarray, direction: np.ndarray, up: np.ndarray, camera: Camera, path: np.ndarray | None = None
) -> np.ndarray:
    """T_world_camera of a viewer in that direction (3,) whose image the points (N, 3) fill but for a small margin.

    A few points in a thousand at each edge may fall outside: stray surfels must not shrink the room. All of a
    camera's `path` (M, 3) is inside.
    """
    centre = np.median(positions, axis=0)
    R = look_at(direction, np.zeros(3), up)[:3, :3]
    local = (positions - centre) @ R  # camera axes, centred
    ends = (np.zeros((0, 3)) if path is None else path - centre) @ R
    margin = 0.94
    half_x = margin * min(camera.cx, camera.width - camera.cx) / camera.fx
    half_y = margin * min(camera.cy, camera.height - camera.cy) / camera.fy
    shift, distance = np.zeros(2), 0.0
    for _ in range(8):  # each side asks for a distance; the shift makes opposite sides ask for the same
        needs = []
        for axis, half, sign in ((0, half_x, 1), (0, half_x, -1), (1, half_y, 1), (1, half_y, -1)):
            surfels = sign * (local[:, axis] - shift[axis]) / half - local[:, 2]
            cameras = sign * (ends[:, axis] - shift[axis]) / half - ends[:, 2]
            needs.append(max(float(np.percentile(surfels, 99.7)), float(cameras.max(initial=-np.inf))))
        distance = max(needs)
        shift += 0.25 * np.array([(needs[0] - needs[1]) * half_x, (needs[2] - needs[3]) * half_y])
    distance = max(distance, 0.1)
    return poses.from_rotation_translation(R, centre + R @ np.array([shift[0], shift[1], -distance]))


def overview(cloud: SurfelCloud, camera: Camera, up: np.ndarray, *, trajectory: np.ndarray | None = None) -> np.ndarray:
    """T_world_camera of the raised view from outside that shows most of the map.

    Of AROUND directions, that from which the most surfels are visible with surfels that face away left out, so that
    near walls and the ceiling open the room. With a trajectory, directions from which the cameras looked count more.
    """
    if len(cloud) == 0:
        return look_at(up * 2, np.zeros(3), up)
    sample = without_remote(thinned(cloud))
    directions, shares, path = _seen_from_around(sample, camera, up, trajectory)
    if path is not None and trajectory is not None:
        looking = np.asarray(trajectory)[:, :3, 2].mean(axis=0)
        shares *= 1 + 0.5 * -directions @ looking
    return framed(sample.positions, directions[np.argmax(shares)], up, _small(camera), path)


def _small(camera: Camera) -> Camera:
    return camera.resized(max(camera.width // 4, 32), max(camera.height // 4, 24))


def _seen_from_around(
    sample: SurfelCloud, camera: Camera, up: np.ndarray, trajectory: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """AROUND directions (A, 3), the share (A,) of surfels that is seen from each, the places (M, 3) of cameras."""
    small = _small(camera)
    path = None if trajectory is None or len(trajectory) == 0 else np.asarray(trajectory)[:, :3, 3]
    directions = np.array([raised_direction(up, k * 2 * np.pi / AROUND, ELEVATION) for k in range(AROUND)])
    shares = []
    for direction in directions:
        seen = render(sample, small, framed(sample.positions, direction, up, small, path)).index
        shares.append(len(np.unique(seen[seen >= 0])) / len(sample))
    return directions, np.array(shares), path


def swing(
    cloud: SurfelCloud, camera: Camera, up: np.ndarray, count: int, *, trajectory: np.ndarray | None = None
) -> np.ndarray:
    """(count, 4, 4) poses of a viewer who goes around the map from outside, and begins where most of it is seen.

    All the way around where it is seen from all sides. Else to and fro, over the directions from which at least
    `WELL_SEEN` of what the best one shows is seen: behind a wall there are only the backs of things, which no camera
    saw. The map fills each picture.
    """
    sample, small = without_remote(thinned(cloud)), _small(camera)
    _, shares, path = _seen_from_around(sample, camera, up, trajectory)
    best = int(np.argmax(shares))
    well = shares >= WELL_SEEN * shares[best]
    step, turns = 2 * np.pi / AROUND, np.arange(count) / count
    if well.all():
        angles = step * best + 2 * np.pi * turns
    else:
        before = int(np.argmin(well[(best - np.arange(AROUND)) % AROUND])) - 1  # directions that are well seen
        after = int(np.argmin(well[(best + np.arange(AROUND)) % AROUND])) - 1
        half, middle = max(before + after, 1) / 2, (after - before) / 2
        start = np.arcsin(np.clip(-middle / half, -1, 1))
        angles = step * (best + middle + half * np.sin(start + 2 * np.pi * turns))
    return np.stack(
        [framed(sample.positions, raised_direction(up, angle, ELEVATION), up, small, path) for angle in angles]
    )
