"""The built-in synthetic room: a furnished room, ray-cast, with exact depth, labels, poses and mesh."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from semslam.camera import Camera
from semslam.frame import UNLABELLED, Frame
from sequences.room import depth_noise, kinect_noise
from sequences.room.scene import ROOM, Scene, furnished_room
from sequences.room.textures import SIZE, textures
from sequences.sequence import Mesh, Sequence

FPS = 30.0
ROUND = 450  # frames of one round of `orbit`: 24 degrees per second
SMALLEST = 16  # pixels: sides of images of which anything can be made
LAYOUT = "the word 'room', or 'room:frames=900,width=320,height=240,noise=kinect,seed=0'"
NOISE: dict[str, Callable | None] = {
    "none": None,
    "kinect": kinect_noise.kinect_noise,
    "realsense": depth_noise.realsense_noise,
    "tof": depth_noise.tof_noise,
}


def orbit(seconds: float) -> np.ndarray:
    """T_world_camera (4, 4) of the default path: round the low table, looking across it at the far side.

    A round takes ROUND frames (15 s, 0.25 m/s); the camera sways and nods as in a hand, and comes back to
    where it was after every round, so 900 frames are two rounds, for closing loops.
    """
    turn = 2 * np.pi * seconds * FPS / ROUND
    middle = np.array([ROOM[0] / 2 - 0.1, ROOM[1] / 2, 1.42])
    radius = 0.55 + 0.06 * np.sin(3 * turn)
    eye = middle - radius * np.array([1.15 * np.cos(turn), np.sin(turn), 0]) + [0, 0, 0.07 * np.sin(4 * turn + 1)]
    heading = turn + 0.12 * np.sin(5 * turn)
    pitch = -0.24 + 0.20 * np.sin(3 * turn + 3.5)
    roll = 0.03 * np.sin(7 * turn)
    forward = np.array([np.cos(heading) * np.cos(pitch), np.sin(heading) * np.cos(pitch), np.sin(pitch)])
    right = np.array([np.sin(heading), -np.cos(heading), 0.0])
    down = np.cross(forward, right)
    T = np.eye(4)
    T[:3, 0] = np.cos(roll) * right + np.sin(roll) * down
    T[:3, 1] = np.cos(roll) * down - np.sin(roll) * right
    T[:3, 2] = forward
    T[:3, 3] = eye
    return T


class RoomSequence(Sequence):
    """The synthetic room seen along a path; frames are rendered when asked for, the same every time."""

    def __init__(
        self,
        frames: int = ROUND,
        width: int = 640,
        height: int = 480,
        noise: Callable[[Frame, np.ndarray, np.random.Generator], Frame] | None = None,
        seed: int = 0,
        path: Callable[[float], np.ndarray] = orbit,
    ) -> None:
        """`noise` turns an exact frame, with the cosines of incidence (H, W), into what a sensor would record."""
        if frames < 1:
            raise ValueError(f"room: frames is {frames}, expected at least 1")
        focal = 525.0 * width / 640
        self.name = "room"
        self.camera = Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)
        self.timestamps = np.arange(frames) / FPS
        self._path = tuple(path(float(t)) for t in self.timestamps)
        self.poses = self._path
        self.label_set = "nyu40"
        self.has_depth = True
        self._noise, self._seed = noise, seed
        self.readout = 0.0
        self.sensor = next((name for name, of in NOISE.items() if of is noise and of is not None), None)

    def __getitem__(self, index: int) -> Frame:
        i = self._checked(index)
        T_world_camera = self._path[i]
        view = render(self.camera, T_world_camera)
        exact = Frame(
            i, float(self.timestamps[i]), view.color, self.camera, view.depth, view.labels, T_world_camera.copy()
        )
        if self._noise is None:
            return exact
        return self._noise(exact, view.incidence, np.random.default_rng((self._seed, i)))

    def mesh(self) -> Mesh:
        scene = furnished_room()
        return Mesh(scene.vertices.copy(), scene.triangles.copy(), scene.labels.copy())


def fits(path: Path) -> bool:
    name = str(path)
    return (name == "room" or name.startswith("room:")) and not path.exists()


def open_room(path: str | Path = "room", **options: Any) -> RoomSequence:
    """The room as the command line names it: 'room', or 'room:frames=900,noise=kinect'; options do the same."""
    if str(path).partition(":")[0] != "room":
        raise ValueError(f"{path}: is not the built-in room; expected {LAYOUT}")
    settings: dict[str, Any] = dict(options)
    for setting in filter(None, str(path).partition(":")[2].split(",")):
        key, _, value = setting.partition("=")
        settings[key.strip()] = value.strip()
    known = {"frames": int, "width": int, "height": int, "seed": int, "noise": str}
    if unknown := settings.keys() - known.keys():
        raise ValueError(f"{path}: the room has no {', '.join(sorted(unknown))}; it has {', '.join(known)}")
    for key, value in settings.items():
        try:
            settings[key] = known[key](value)
        except ValueError:
            raise ValueError(f"{path}: {key} is {value!r}, expected a whole number; as in {LAYOUT}") from None
    if too_small := [key for key in ("width", "height") if settings.get(key, SMALLEST) < SMALLEST]:
        raise ValueError(f"{path}: {too_small[0]} is {settings[too_small[0]]} pixels, expected {SMALLEST} or more")
    noise = settings.pop("noise", "none")
    if noise not in NOISE:
        raise ValueError(f"{path}: no noise {noise!r}; there are {', '.join(NOISE)}")
    return RoomSequence(noise=NOISE[noise], **settings)


@dataclass(frozen=True, eq=False)
class Rendering:
    """What a camera sees of the room, exactly."""

    color: np.ndarray  # (H, W, 3) uint8 RGB
    depth: np.ndarray  # (H, W) float32 metres, 0 = nothing hit
    labels: np.ndarray  # (H, W) uint8, 255 = nothing hit
    incidence: np.ndarray  # (H, W) float32 cosine between the ray and the surface normal


def render(camera: Camera, T_world_camera: np.ndarray) -> Rendering:
    """Cast one ray through the centre of each pixel; the light is baked, so a surface has one colour from all sides."""
    import open3d as o3d

    from sequences.room.kernels import Hits, shade

    scene, shading = furnished_room(), _shading()
    rays = _rays(camera, T_world_camera)
    cast = _caster().cast_rays(o3d.core.Tensor.from_numpy(rays))
    # The rays advance 1 m along z per unit, so t is z and not the ray's length.
    hits = Hits(*(cast[name].numpy() for name in ("t_hit", "primitive_ids", "primitive_uvs", "primitive_normals")))
    color, depth, labels, incidence = shade(
        hits, rays, shading.corners, shading.row, shading.atlas, scene.labels, SIZE, UNLABELLED
    )
    return Rendering(color, depth, labels, incidence)


def _rays(camera: Camera, T_world_camera: np.ndarray) -> np.ndarray:
    """(H, W, 6) float32 origins and directions, world frame, through the pixel centres; 1 m along z per unit."""
    x = (np.arange(camera.width) - camera.cx) / camera.fx
    y = (np.arange(camera.height) - camera.cy) / camera.fy
    rays = np.empty((*camera.shape, 6), np.float32)
    rays[..., :3] = T_world_camera[:3, 3]
    for k, (r_x, r_y, r_z) in enumerate(T_world_camera[:3, :3].astype(np.float32)):
        rays[..., 3 + k] = (r_x * x).astype(np.float32)[None, :] + (r_y * y + r_z).astype(np.float32)[:, None]
    return rays


@cache
def _caster() -> Any:
    import open3d as o3d

    scene = furnished_room()
    caster = o3d.t.geometry.RaycastingScene()
    caster.add_triangles(o3d.core.Tensor(scene.vertices), o3d.core.Tensor(scene.triangles.astype(np.uint32)))
    return caster


@dataclass(frozen=True, eq=False)
class _Shading:
    """What turns a hit into a colour."""

    corners: np.ndarray  # (M, 9) float32: (u, v, light) at corner 0, then their steps to corners 1 and 2
    row: np.ndarray  # (M,) int64 first row of the triangle's texture in the atlas
    atlas: np.ndarray  # (tiles * (SIZE + 2), SIZE + 2, 3) uint8, each tile with a border of its other side


@cache
def _shading() -> _Shading:
    scene = furnished_room()
    light = _baked_light(scene)[scene.triangles]
    value = np.concatenate([scene.uv, light[..., None]], axis=-1)
    corners = np.concatenate([value[:, 0], value[:, 1] - value[:, 0], value[:, 2] - value[:, 0]], axis=-1)
    tiles = [np.pad(tile, ((1, 1), (1, 1), (0, 0)), mode="wrap") for tile in textures().values()]
    row = scene.texture.astype(np.int64) * (SIZE + 2)
    return _Shading(corners.astype(np.float32), row, np.concatenate(tiles))


def _baked_light(scene: Scene) -> np.ndarray:
    """(N,) float32 brightness of each vertex: sky light dimmed by what is near, a ceiling lamp and the window."""
    import open3d as o3d

    normals = np.zeros_like(scene.vertices)
    for corner in range(3):
        np.add.at(normals, scene.triangles[:, corner], scene.normals)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-6)
    # A vertex on the room's edge lies inside the next wall: the light is measured a little towards its triangles.
    centroids, count = np.zeros_like(scene.vertices), np.zeros((len(scene.vertices), 1), np.float32)
    for corner in range(3):
        np.add.at(centroids, scene.triangles[:, corner], scene.vertices[scene.triangles].mean(axis=1))
        np.add.at(count, scene.triangles[:, corner], 1)
    inwards = centroids / np.maximum(count, 1) - scene.vertices
    inwards -= (inwards * normals).sum(axis=1, keepdims=True) * normals
    start = scene.vertices + 0.2 * inwards + 0.004 * normals

    def unblocked(directions: np.ndarray, far: float) -> np.ndarray:
        rays = np.concatenate([start, directions], axis=-1).astype(np.float32)
        return ~_caster().test_occlusions(o3d.core.Tensor(rays), tnear=0.0, tfar=far).numpy()

    rng = np.random.default_rng(11)
    open_sky = np.zeros(len(start))
    samples = 48
    for _ in range(samples):
        direction = normals + 0.999 * _unit(rng.standard_normal(3))  # cosine-weighted about the normal
        open_sky += unblocked(_unit(direction), 0.7)
    brightness = 0.50 * open_sky / samples
    lamps = [([2.4, 2.1, 2.4], 0.85), ([1.3, 1.2, 2.4], 0.35), ([3.8, 3.0, 2.4], 0.35), ([1.85, 4.05, 1.5], 0.5)]
    for position, power in lamps:
        for offset in rng.uniform(-0.3, 0.3, (6, 3)) * [1, 1, 0.1]:
            to_lamp = np.array(position) + offset * [1, 0.3, 1] - start
            distance = np.linalg.norm(to_lamp, axis=1)
            cosine = np.maximum((to_lamp * normals).sum(1) / distance, 0)
            seen = unblocked(to_lamp, 0.98)  # the direction is not normalised: 1 is the lamp
            brightness += power / 6 * cosine * seen / (0.35 + 0.30 * distance**2)
    glow = np.isin(scene.texture, [list(textures()).index(name) for name in ("window", "screen", "shade")])
    brightness[scene.triangles[glow].ravel()] = 1.0
    return (brightness / (0.55 + 0.45 * brightness)).astype(np.float32)  # bright places saturate softly


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)
