"""The scale of a map from colour alone by a size that is known: a length in an image, or the height of the camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from semslam.camera import Camera
from semslam.depth.completion import CompletedDepth
from semslam.depth.multiview import MultiViewConfig, MultiViewDepth
from semslam.frame import evenly_spread, first_few
from semslam.labels import LABEL_SETS
from semslam.perception import Network, predicted
from semslam.robust import MAD_TO_STD
from semslam.runs.color_only.poses import VisualPoses
from sequences import Sequence as Recording

FORMS = (
    "height=METRES (of the camera above a floor that the labels show) or length=METRES,FRAME,U,V,U,V (between two "
    "pixels of a frame)"
)
FLOORS = 8  # frames in which the floor is looked for
FEWEST_FLOORS = 2
NAMED = 8  # frames that a message names
FLOOR_SHARE = 0.03  # of the image that must show it
FLAT = 0.02  # of the camera's distance to the floor: a point that is nearer to a plane lies on it
SAMPLES = 200  # of three points, by which the floor's plane is looked for
LEAST_STD = 0.01  # relative: people measure, and click, no better


@dataclass(frozen=True)
class KnownSize:
    """What `scale_from` says."""

    metres: float
    frame: int | None = None  # its number in the whole recording; None: it is the camera's height above the floor
    pixels: tuple[tuple[float, float], tuple[float, float]] | None = None  # ends of the length, (u, v) as recorded

    @staticmethod
    def parsed(text: str) -> KnownSize:
        """From one of FORMS; ValueError for anything else."""
        kind, _, rest = text.partition("=")
        try:
            numbers = [float(word) for word in rest.split(",")]
        except ValueError:
            numbers = []
        expected = {"height": 1, "length": 6}.get(kind)
        if len(numbers) != expected or not np.all(np.isfinite(numbers)) or numbers[0] <= 0:
            raise ValueError(f"`scale_from` is {text!r}, expected {FORMS}")
        if kind == "height":
            return KnownSize(numbers[0])
        if not numbers[1].is_integer():
            raise ValueError(f"`scale_from` is {text!r}: its frame is {numbers[1]:g}, expected a whole number")
        return KnownSize(numbers[0], int(numbers[1]), ((numbers[2], numbers[3]), (numbers[4], numbers[5])))


def with_known_size(
    visual: VisualPoses, known: KnownSize, sequence: Recording, network: Network, classes: str, config: MultiViewConfig
) -> VisualPoses:
    """The poses scaled so that what is known has its size.

    sequence: the `sequences.Sequence` that was tracked. classes: the network's label set. ValueError where the frame,
    the pixels or the floor do not allow it.
    """
    measure = _Measure(visual, sequence, network, config)
    if known.frame is not None:
        length, std = _length(measure, known)
    else:
        length, std = _height(measure, visual, LABEL_SETS[classes].classes)
    return visual.scaled(known.metres / length, max(std, LEAST_STD))


class _Measure:
    """Depth by parallax of single frames."""

    def __init__(self, visual: VisualPoses, sequence: Recording, network: Network, config: MultiViewConfig) -> None:
        self.sequence, self.network = sequence, network
        camera: Camera = sequence.camera
        self.views = MultiViewDepth(camera, visual.given().T_world_camera, sequence.color_of, config)
        self.views.scene = visual.depth

    def usable(self) -> list[int]:
        """Frames, evenly spread, that show parallax, by their numbers in the whole recording."""
        views = self.views
        posed = [i for i, T in enumerate(views.T_world_camera) if T is not None]
        shown = [i for i in posed if len(views.neighbours_of(i)) >= views.config.fewest]
        return [self.sequence.number_of(i) for i in evenly_spread(shown, NAMED)]

    def __call__(self, index: int) -> tuple[CompletedDepth, np.ndarray] | None:
        """Depth and classes (H, W) of a frame at the size of `views.camera`; None where parallax shows none."""
        if self.views.T_world_camera[index] is None:
            return None
        camera, color = self.views.camera, self.sequence.color_of(index)
        size, focal = (camera.width, camera.height), self.sequence.camera.fx
        said = predicted(self.network, color, size, focal, self.sequence.recorded_image(index))
        found = self.views.measured(index, color, said.depth)
        return None if found is None else (found, said.class_probabilities.argmax(axis=2))


def _length(measure: _Measure, known: KnownSize) -> tuple[float, float]:
    """The known length as the map has it, and its relative standard deviation."""
    assert known.frame is not None
    sequence, camera = measure.sequence, measure.views.camera
    numbers = [sequence.number_of(i) for i in range(len(sequence))]
    if known.frame not in numbers:
        used = f"{numbers[0]}..{numbers[-1]}" if len(numbers) == numbers[-1] - numbers[0] + 1 else first_few(numbers)
        raise ValueError(f"`scale_from` names frame {known.frame}, but there are frames {used}")
    index = numbers.index(known.frame)
    ends_shown = _shown(known, index, sequence)
    measured = measure(index)
    if measured is None:
        usable = measure.usable()
        others = (
            f"frames {', '.join(map(str, usable))} show some" if usable else "no frame does; the camera has to move"
        )
        raise ValueError(f"`scale_from` names frame {known.frame}, which shows no parallax; {others}")
    depth, log_std = measured[0].depth, measured[0].log_std
    whole, ends, spreads = sequence.camera, [], []
    for u, v in ends_shown:
        x, y = (u + 0.5) * camera.width / whole.width - 0.5, (v + 0.5) * camera.height / whole.height - 0.5
        column, row = min(max(round(x), 0), camera.width - 1), min(max(round(y), 0), camera.height - 1)
        ray = np.array([(x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy, 1.0])
        ends.append(ray * float(depth[row, column]))
        spreads.append(float(log_std[row, column]) * float(np.linalg.norm(ends[-1])))
    length = float(np.linalg.norm(ends[1] - ends[0]))
    if length < 1e-3:
        raise ValueError("`scale_from` names two pixels that show one place; give the ends of the length")
    return length, float(np.hypot(spreads[0], spreads[1])) / length


def _shown(known: KnownSize, index: int, sequence: Recording) -> np.ndarray:
    """Where the ends of the known length are in the image that is measured in, (2, 2): a lens, a zoom or bars may have
    been undone since they were read off the recorded one."""
    recorded, camera = sequence.recorded_camera(index), sequence.camera
    ends = np.array(known.pixels, np.float64)
    for (u, v), (x, y) in zip(ends, sequence.shown_at(index, ends)):
        if not (0 <= u < recorded.width and 0 <= v < recorded.height):
            size = f"{recorded.width}x{recorded.height}"
            raise ValueError(f"`scale_from` names pixel {u:g},{v:g}, outside the {size} image")
        if not (0 <= round(x) < camera.width and 0 <= round(y) < camera.height):
            raise ValueError(
                f"`scale_from` names pixel {u:g},{v:g} of frame {known.frame}, which is cut off where the lens, the "
                f"zoom or the bars of the images are undone; name one nearer to the middle"
            )
    return sequence.shown_at(index, ends)


def _height(measure: _Measure, visual: VisualPoses, classes: tuple[str, ...]) -> tuple[float, float]:
    """The camera's height above the floor as the map has it, and its relative standard deviation: of the median."""
    names = [name.lower() for name in classes]
    if "floor" not in names:
        raise ValueError(
            f"`scale_from` is the camera's height, but the classes ({', '.join(names)}) have no floor; use nyu13 or "
            f"nyu40, or give a length between two pixels: {FORMS}"
        )
    floor = names.index("floor")
    heights = []
    looked_at = evenly_spread(np.flatnonzero(visual.good).tolist(), FLOORS)
    for index in looked_at:
        measured = measure(index)
        if measured is None:
            continue
        found, labels = measured
        shown = (labels == floor) & (found.log_std < 0.1)
        if shown.mean() >= FLOOR_SHARE:
            points = measure.views.camera.backproject(found.depth)[shown].astype(np.float64)
            heights.append(distance_to_plane(points))
    if len(heights) < FEWEST_FLOORS:
        raise ValueError(
            f"`scale_from` is the camera's height, but the floor was found in {len(heights)} of {len(looked_at)} "
            f"frames, expected {FEWEST_FLOORS}; give a length between two pixels: {FORMS}"
        )
    middle = float(np.median(heights))
    spread = MAD_TO_STD * float(np.median(np.abs(np.array(heights) - middle)))
    return middle, spread / middle / np.sqrt(len(heights))


def distance_to_plane(points: np.ndarray) -> float:
    """How far from the origin the plane is that most of the points (N, 3) lie on (RANSAC, then least squares)."""
    rng = np.random.default_rng(0)
    best, on = -1, np.ones(len(points), bool)
    for _ in range(SAMPLES):
        a, b, c = points[rng.choice(len(points), 3, replace=False)]
        normal = np.cross(b - a, c - a)
        size = np.linalg.norm(normal)
        if size < 1e-9:
            continue
        normal = normal / size
        near = np.abs((points - a) @ normal) < FLAT * abs(a @ normal)
        if near.sum() > best:
            best, on = int(near.sum()), near
    middle = points[on].mean(axis=0)
    normal = np.linalg.svd(points[on] - middle, full_matrices=False)[2][2]
    return float(abs(middle @ normal))
