"""Whether landmarks fit the camera that a recording names: its focal length, its principal point, its distortion.

A wrong camera bends a map, but not by so much that landmarks could no longer be followed. A bundle adjustment with the
camera among its unknowns, one for all images, tells how much better they fit another one. It minimises the cost of
`bundle_adjustment`, with pixels f A D(p) + c in place of f p, D(p) = p (1 + k1 |p|^2 + k2 |p|^4) (OpenCV's radial
distortion), A = diag(1, exp(a)) of pixels that are not square, plus ((number - known) / STD)^2 of the camera's six
numbers.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

import numpy as np

from semslam import cholesky, poses
from semslam.camera import Camera
from semslam.tracking.visual.bundle_adjustment import Scene
from semslam.tracking.visual.normal_equations import Equations, Linearised, cross, equations_of, minimised
from semslam.tracking.visual.sparse_map import SparseMap
from semslam.tracking.visual.zoom import adjusted, seen_within, smoothed

TWIST = 6  # unknowns of a pose
# numbers of a lens: logarithm of its focal length over the known one; principal point less the known one, right and
# down, in known focal lengths; k1; k2; logarithm of the pixels' width over their height, over the known one
STD = np.array([0.3, 0.2, 0.2, 0.3, 0.3, 0.2])  # of these, before the images are asked
TOGETHER, MOST = 100, 1500  # keyframes that are adjusted together, and their landmarks that most of them show
FLAT = 0.08  # standard deviation of the logarithm of depth within images of a wall
FEWEST = 5  # keyframes
LENSES = (  # which of the numbers may change: the simplest first, those of one row alike
    ((False, False, False, True, True, False),),
    (
        (False, True, True, True, True, False),
        (True, False, False, True, True, False),
        (False, False, False, True, True, True),
    ),
    ((True, True, True, True, True, False), (True, False, False, True, True, True)),
)
DISTORTION = LENSES[0][0]
MORE = 0.1  # that a lens of one row has to explain more than the best of those before
EVIDENT = 0.05  # of the mean cost of an observation, what a lens explains: less is not looked for, nor undone
AT_MOST = 2.0  # times what a linear step promises, that a lens explains
OFF_CENTRE = 0.15  # of the longer side, that a principal point lies from the middle of the images, at most
OTHER_FOCAL = 0.3  # of the logarithm of the focal length, at most
SHORTEST, LONGEST = 0.3, 3.5  # focal lengths of cameras, over the longer side: 118 to 16 degrees
USUAL = 1.5  # likewise, at most: 37 degrees; a longer one may be that of a telephoto lens, or what distortion leads to
HALF = 3  # keyframes that tell of a lens without the others
INVERTED = 8  # Newton's steps that undo a distortion


class LensState(NamedTuple):
    """A state of the unknowns."""

    T_camera_world: np.ndarray  # (N, 4, 4)
    log_depth: np.ndarray  # (L,)
    lens: np.ndarray  # (6,)

    def moved(self, step: np.ndarray, landmarks: np.ndarray) -> LensState:
        """After steps of poses and lens (6 N + 6,) and of the logarithms of depth (L,)."""
        twists, lens = step[: -len(STD)].reshape(-1, TWIST), step[-len(STD) :]
        T = np.stack([poses.exp(twist) @ T for twist, T in zip(twists, self.T_camera_world)])
        logs = np.clip(self.log_depth + np.clip(landmarks, -1, 1), -3, 6)
        return LensState(T, logs, self.lens + np.clip(lens, -0.1, 0.1))


class FoundLens(NamedTuple):
    """The lens that a sparse map fits best."""

    numbers: np.ndarray  # (6,), see STD; zeros where it is not believed
    explained: float  # by how much it lowers the mean cost of an observation
    denied: float = 0.0  # by how much another one would, that is not believed

    @property
    def most(self) -> float:
        """By how much any lens lowers that cost, believed or not."""
        return max(self.explained, self.denied)

    def applied_to(self, camera: Camera) -> Camera:
        """The camera with this lens, found in images of which `camera` was taken to be right but for distortion, which
        had been undone with its own."""
        z, right, down, k1, k2, stretch = map(float, self.numbers)
        before = camera.distortion or (0.0, 0.0, 0.0, 0.0)
        return replace(
            camera, fx=camera.fx * math.exp(z), fy=camera.fy * math.exp(z + stretch), cx=camera.cx + camera.fx * right,
            cy=camera.cy + camera.fy * down, distortion=(before[0] + k1, before[1] + k2, 0.0, 0.0),
        )  # fmt: skip


def is_believable(lens: Camera, known: Camera, focal_known: bool) -> bool:
    """Whether images that were said to be those of a known camera may be a lens's.

    A camera looks out of the middle of its images, or as far from it as is known. What a rolling shutter, a stretched
    image or a moving crop does to landmarks, a principal point at the images' edge explains as well. focal_known: else
    that of `known` is what landmarks told without any distortion, and may be far off.
    """
    middle = np.array([known.width - 1, known.height - 1]) / 2
    off, said = (float(np.linalg.norm([camera.cx, camera.cy] - middle)) for camera in (lens, known))
    focal, side = math.sqrt(lens.fx * lens.fy), max(known.width, known.height)
    if focal_known:
        may_be = abs(math.log(focal / math.sqrt(known.fx * known.fy))) <= OTHER_FOCAL
    else:
        may_be = SHORTEST <= focal / side <= LONGEST
    return off <= max(OFF_CENTRE * side, said) and may_be


def lens_of(world: SparseMap) -> FoundLens | None:
    """The lens that a map's landmarks fit best; None where too few tell. A part in the middle speaks for a long one.

    Lenses distort that are not said to; that focal length or principal point are wrong, too, has to explain much more,
    and in either half of the images what the other half says of them.
    """
    if len(world.keyframes) < FEWEST:
        return None
    scene = _middle_of(world)
    if len(scene.landmark) < 20:
        return None
    promised = promised_by_a_step(scene, world.pixel_std)
    simplest, promises = promised[0], iter(promised)
    nothing = np.zeros(len(STD))
    best, least, denied = FoundLens(nothing, 0.0), 0.0, 0.0
    of_best = DISTORTION
    without: tuple[LensState, float] | None = None
    for row in LENSES:
        for which in row:
            if AT_MOST * next(promises) > max(least, EVIDENT):
                without = without or fitted(scene, world.pixel_std, np.zeros(len(STD), bool))
                found, cost = fitted(scene, world.pixel_std, np.array(which), without[0])
                one = FoundLens(found.lens, (without[1] - cost) / len(scene.landmark))
                if not is_believable(one.applied_to(world.camera), world.camera, world.focal_known):
                    denied = max(denied, one.explained)
                elif one.explained > max(least, best.explained):
                    best, of_best = one, which
        least = max(best.explained, simplest) + MORE
    if denied > best.explained + MORE:
        return FoundLens(nothing, 0.0, denied)
    if of_best != DISTORTION and not is_of_both_halves(scene, world.pixel_std, np.array(of_best)):
        return FoundLens(nothing, 0.0, best.explained)
    return best


def is_of_both_halves(scene: Scene, pixel_std: float, lens: np.ndarray) -> bool:
    """Whether the lens that either half of the keyframes tells explains something in the other half; also where they
    are too few. lens: (6,) bool, which of its numbers may change.

    There is one lens for all images. A shaking rolling shutter is another one in each.
    """
    count = len(scene.fixed)
    first = np.arange(count) < count // 2
    halves = [seen_within(scene, mine) for mine in (first, ~first)]
    if count // 2 < HALF or min(len(half.landmark) for half in halves) < 20:
        return True
    halves = [half._replace(fixed=half.fixed | (np.arange(len(half.fixed)) == 0)) for half in halves]
    none = np.zeros(len(STD), bool)
    without = [fitted(half, pixel_std, none) for half in halves]
    found = [fitted(half, pixel_std, lens, start[0])[0].lens for half, start in zip(halves, without)]
    explained = 0.0
    for half, (start, cost), other in zip(halves, without, found[::-1]):
        with_other = fitted(half, pixel_std, none, start._replace(lens=other))[1] - float((other**2 / STD**2).sum())
        explained += (cost - with_other) / len(half.landmark)
    return explained > 0


def focal_spread_of(world: SparseMap) -> float:
    """Standard deviation of the logarithm of the focal length over the keyframes, if each may have one of its own; NaN
    where too few tell, or before a wall: approaching what has one depth looks like zooming.

    Once zoom, lens and shutter are undone, what is left of that has another cause, such as a wrong camera, a moving
    crop or a path that went wrong: each part of the images wants a camera of its own.
    """
    if len(world.keyframes) < FEWEST:
        return np.nan
    scene = _middle_of(world)
    if len(scene.landmark) < 20:
        return np.nan
    _, of_host = np.unique(scene.host, return_inverse=True)
    middle = np.bincount(of_host, scene.log_depth) / np.bincount(of_host)
    if np.std(scene.log_depth - middle[of_host]) < FLAT:
        return np.nan
    return float(np.std(smoothed(adjusted(scene, world.pixel_std)[0].z)))


def _middle_of(world: SparseMap) -> Scene:
    """At most TOGETHER keyframes in the middle of a map, and MOST of their own landmarks."""
    count = len(world.keyframes)
    first = max(0, (count - TOGETHER) // 2)
    free = (np.arange(count) >= first) & (np.arange(count) < first + TOGETHER)
    scene, frames, _, _ = world.scene(free, with_focal=False)
    scene = most_seen(seen_within(scene, free[frames]), MOST)  # others, held where they are, would hold the lens too
    return scene._replace(fixed=np.arange(len(scene.fixed)) == 0)


class Straightening:
    """Pixels of images, and where they would be without the distortion of the lens that took them."""

    def __init__(self, lens: Camera) -> None:
        """lens: with its distortion k1 k2 0 0, or none."""
        self.camera = lens.undistorted()
        self._k = (lens.distortion or (0.0, 0.0))[:2]
        self._focal, self._centre = np.array([lens.fx, lens.fy]), np.array([lens.cx, lens.cy])

    def straight(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels (N, 2) as `camera` sees them."""
        return undistorted((pixels - self._centre) / self._focal, *self._k) * self._focal + self._centre

    def recorded(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels (N, 2) of `camera` as they were recorded."""
        return distorted((pixels - self._centre) / self._focal, *self._k)[0] * self._focal + self._centre


def promised_by_a_step(scene: Scene, pixel_std: float) -> np.ndarray:
    """By how much one linear step lowers the mean cost of an observation with each of LENSES, more than without."""
    start = LensState(scene.T_camera_world, scene.log_depth, np.zeros(len(STD)))
    _, equations = linearised(scene, start, pixel_std)
    H, g = equations.reduced(equations.H_ll + 1e-9)
    H[np.diag_indices(len(H))] += 1e-9
    falls = []
    for lens in (np.zeros(len(STD), bool), *chain(*LENSES)):
        free = np.concatenate([np.repeat(~scene.fixed, TWIST), lens])
        step = cholesky.solved(H[np.ix_(free, free)], -g[free])
        falls.append(0.0 if step is None else -float(g[free] @ step))
    return (np.array(falls[1:]) - falls[0]) / len(scene.landmark)


def most_seen(scene: Scene, most: int) -> Scene:
    """The scene with those of its landmarks alone that most cameras see."""
    seen = np.bincount(scene.landmark, minlength=len(scene.host))
    kept = np.sort(np.argsort(-seen, kind="stable")[:most])
    place = np.full(len(seen), -1)
    place[kept] = np.arange(len(kept))
    rows = place[scene.landmark] >= 0
    return scene._replace(
        host=scene.host[kept], pixel=scene.pixel[kept], log_depth=scene.log_depth[kept], prior=scene.prior[kept],
        prior_weight=scene.prior_weight[kept], landmark=place[scene.landmark[rows]], camera=scene.camera[rows],
        seen=scene.seen[rows],
    )  # fmt: skip


def fitted(scene: Scene, pixel_std: float, lens: np.ndarray, start: LensState | None = None) -> tuple[LensState, float]:
    """The poses, depths and lens that agree best, and their cost.

    pixel_std: see `adjust`. lens: (6,) bool, which of its numbers may change. start: from where; None = the scene.
    """
    if start is None:
        start = LensState(scene.T_camera_world, scene.log_depth, np.zeros(len(STD)))
    free = np.concatenate([np.repeat(~scene.fixed, TWIST), lens])
    return minimised(start, lambda state: linearised(scene, state, pixel_std), free)


def linearised(scene: Scene, state: LensState, pixel_std: float) -> tuple[float, Equations]:
    """The cost of a state, and its normal equations."""
    found = _errors(scene, state, pixel_std)
    cost, equations = equations_of(found, scene.landmark, TWIST * len(scene.fixed) + len(STD), len(scene.host))
    change, weight = state.log_depth - scene.prior, 1 / STD**2
    equations.H_ll[:] += scene.prior_weight
    equations.g_l[:] += scene.prior_weight * change
    last = np.arange(-len(STD), 0)
    equations.H[last, last] += weight
    equations.g[last] += weight * state.lens
    return cost + float((scene.prior_weight * change**2).sum() + (weight * state.lens**2).sum()), equations


def _errors(scene: Scene, state: LensState, pixel_std: float) -> Linearised:
    z, centre, (k1, k2), stretch = state.lens[0], state.lens[1:3], state.lens[3:5], state.lens[5]
    known, f, l = scene.focal, scene.focal * np.exp([z, z + stretch]), scene.landmark  # f: along x and y
    bent = (scene.pixel - known * centre) / f  # (L, 2) of the landmarks in their hosts
    straight = undistorted(bent, k1, k2)
    _, by_straight, by_k = distorted(straight, k1, k2)
    back = np.linalg.inv(by_straight)
    taller = bent[:, :, None] * [[0.0], [1.0]]  # what stretching changes
    ray_by_lens = -back @ np.concatenate(  # (L, 2, 6)
        [bent[:, :, None], np.broadcast_to(np.diag(known / f), back.shape), by_k, taller], axis=2
    )
    j, h = scene.camera, scene.host[l]
    R_h = state.T_camera_world[h, :3, :3]
    R = state.T_camera_world[j, :3, :3] @ R_h.transpose(0, 2, 1)  # R_j_h
    t = state.T_camera_world[j, :3, 3] - np.einsum("mik,mk->mi", R, state.T_camera_world[h, :3, 3])
    inverse_depth = np.exp(-state.log_depth[l])[:, None]
    ray = np.column_stack([straight, np.ones(len(straight))])[l]
    y = np.einsum("mik,mk->mi", R, ray) + t * inverse_depth  # the landmark in the observer, over its depth in the host
    ahead = y[:, 2] > 1e-3
    depth = np.where(ahead, y[:, 2], 1.0)[:, None]
    p = y[:, :2] / depth
    shown, by_p, by_k = distorted(p, k1, k2)
    by = np.zeros((len(j), 3, 19))  # derivatives of y by the twists of observer and host, by lens and log of depth
    by[:, :, 0:3] = np.eye(3) * inverse_depth[:, :, None]
    by[:, :, 3:6] = -cross(y)
    by[:, :, 6:9] = -inverse_depth[:, :, None] * R
    by[:, :, 9:12] = R @ cross(ray)
    by[:, :, 12:18] = R[:, :, :2] @ ray_by_lens[l]
    by[:, :, 18] = -inverse_depth * t
    J = f[:, None] * (by_p @ ((by[:, :2] - p[:, :, None] * by[:, 2:]) / depth[:, :, None]))
    J[:, :, 12] += f * shown
    J[:, :, 13:15] += known * np.eye(2)
    J[:, :, 15:17] += f[:, None] * by_k
    J[:, 1, 17] += f[1] * shown[:, 1]
    cameras = TWIST * np.column_stack([j, h])[:, :, None] + np.arange(TWIST)
    lens = np.broadcast_to(TWIST * len(scene.fixed) + np.arange(len(STD)), (len(j), len(STD)))
    unknowns = np.column_stack([cameras.reshape(len(j), -1), lens])
    errors = (f * shown + known * centre - scene.seen) / pixel_std
    return Linearised(errors, unknowns, J[:, :, :18] / pixel_std, J[:, :, 18] / pixel_std, ahead)


def distorted(p: np.ndarray, k1: float, k2: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """D(p) of points (N, 2), its derivatives (N, 2, 2) by p and (N, 2, 2) by k1 and k2."""
    r2 = (p * p).sum(axis=1)
    gain = 1 + k1 * r2 + k2 * r2 * r2
    outwards = (2 * k1 + 4 * k2 * r2)[:, None, None] * (p[:, :, None] * p[:, None, :])
    by_k = np.stack([p * r2[:, None], p * (r2 * r2)[:, None]], axis=2)
    return p * gain[:, None], gain[:, None, None] * np.eye(2) + outwards, by_k


def undistorted(bent: np.ndarray, k1: float, k2: float) -> np.ndarray:
    """p (N, 2) of D(p), by Newton's method."""
    p = bent
    for _ in range(INVERTED):
        found, by_p, _ = distorted(p, k1, k2)
        p = p - np.linalg.solve(by_p, (found - bent)[:, :, None])[:, :, 0]
    return p
