"""The pinhole camera: pixels to rays and back."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from numbers import Integral, Real
from typing import Any

import numpy as np

DISTORTIONS = (4, 5, 8, 12, 14)  # how many coefficients OpenCV's models have
# Kinds of depth cameras: base, metres, and quadratic, 1 / metre, of `depth_std`.
# Stereo follows it too: its disparities err alike at all depths, so depth errs by z^2 / (focal length x baseline).
SENSORS = {
    "kinect": (0.0012, 0.0019),  # structured light: Kinect v1, Asus Xtion, PrimeSense
    "tof": (0.0015, 0.0008),  # time of flight: Kinect v2, Azure Kinect
    "realsense": (0.0010, 0.0065),  # active stereo with a short baseline: RealSense D400
    "lidar": (0.0060, 0.0010),  # of telephones, upsampled
    "survey-lidar": (0.0200, 0.000002),  # on cars and tripods, spinning: 2 cm near by, 3 cm at 80 m
    "stereo": (0.0100, 0.00065),  # a car's pair of cameras: a quarter of a pixel, focal length x baseline of KITTI
    "synthetic": (0.0006, 0.0004),  # rendered, rounded to millimetres
}
USUAL_SENSOR = "kinect"  # unless a recording says its own
# Metres: edges of the bins by which noise is measured beyond rooms, a quarter from one to the next.
FARTHER = (5.0, 6.3, 8.0, 10.0, 12.5, 16.0, 20.0, 25.0, 32.0, 40.0, 50.0, 64.0, 80.0)
LARGEST = 32766  # pixels; OpenCV's remapping counts them in 16 bits
KINECT_FOCAL = 0.81  # focal length of a Kinect's colour camera in widths of its image: 63 degrees wide
FARTHEST_VIEW = 1000.0  # times the longer side: no lens has so long a focal length
SHORTEST_VIEW = 0.01  # times the longer side: 179 degrees; a shorter one, with its centre, counts in widths
SAME_ASPECT = 0.02  # of each other: 1296x968 beside 640x480 is one field of view
FOCUSING = 0.03  # by which a lens that focuses changes its focal length, and moves the image by its size
USUAL_FOV = 60.0  # degrees along the longer side: of a camera that nothing is known of


def depth_std(z: Any, base: Any, quadratic: Any) -> Any:
    """Standard deviation of a sensor's depth z, metres: a number or an array (Nguyen et al. 2012, eq. 3)."""
    return base + quadratic * (z - 0.4) ** 2


def same_aspect(shape_a: tuple[int, ...], shape_b: tuple[int, ...]) -> bool:
    """Whether images (H, W, ...) of these shapes may be one view in two sizes, each rounded to pixels."""
    across, down = shape_a[1] * shape_b[0], shape_a[0] * shape_b[1]
    return abs(across - down) <= max(SAME_ASPECT * down, *shape_a[:2], *shape_b[:2])


@dataclass(frozen=True)
class Camera:
    """A pinhole camera. Pixels are (u, v) = (column, row), integer at the pixel's centre."""

    width: int  # pixels
    height: int  # pixels
    fx: float  # pixels
    fy: float  # pixels
    cx: float  # pixels
    cy: float  # pixels
    distortion: tuple[float, ...] | None = None  # OpenCV's k1 k2 p1 p2 [k3 ...]; None = already undistorted
    fisheye: bool = False  # whether distortion is Kannala and Brandt's k1 k2 k3 k4 (2006), OpenCV's fisheye
    focal_known: bool = True  # False: nothing said what camera it is, and fx, fy are a guess

    def __post_init__(self) -> None:
        if not (isinstance(self.width, Integral) and isinstance(self.height, Integral)):
            raise ValueError(f"camera is {self.width!r}x{self.height!r}; expected whole numbers of pixels")
        if self.width < 1 or self.height < 1:
            raise ValueError(f"camera is {self.width}x{self.height}; width and height must be at least 1 pixel")
        intrinsics = (self.fx, self.fy, self.cx, self.cy)
        numbers = all(isinstance(number, Real) and math.isfinite(number) for number in intrinsics)
        if not numbers or self.fx <= 0 or self.fy <= 0:
            raise ValueError(
                f"camera has fx {self.fx}, fy {self.fy}, cx {self.cx}, cy {self.cy}; the focal lengths must be "
                f"positive pixels (a data set with negative fy has its y axis mirrored by its reader)"
            )
        longer = max(self.width, self.height)
        longest, centre = FARTHEST_VIEW * longer, max(abs(self.cx), abs(self.cy))
        in_widths = max(self.fx, self.fy) < SHORTEST_VIEW * longer and centre <= 1
        if in_widths or max(self.fx, self.fy, centre) > longest:
            raise ValueError(
                f"camera has fx {self.fx:g}, fy {self.fy:g}, cx {self.cx:g}, cy {self.cy:g}; expected pixels of its "
                f"{self.width}x{self.height} images"
            )
        if self.width > LARGEST or self.height > LARGEST:
            raise ValueError(f"camera is {self.width}x{self.height}; expected at most {LARGEST} pixels each way")
        if self.fisheye and (self.distortion is None or len(self.distortion) != 4):
            raise ValueError(
                f"a fisheye camera has distortion {self.distortion}; expected its four numbers k1 k2 k3 k4"
            )
        if self.distortion is not None:
            object.__setattr__(self, "distortion", tuple(map(float, self.distortion)))  # cameras are keys of caches
        if self.distortion is not None and (
            len(self.distortion) not in DISTORTIONS or not np.all(np.isfinite(self.distortion))
        ):
            raise ValueError(
                f"camera has {len(self.distortion)} distortion coefficients {self.distortion}; expected OpenCV's "
                f"k1 k2 p1 p2 [k3 [k4 k5 k6 [s1 s2 s3 s4 [tx ty]]]]: {', '.join(map(str, DISTORTIONS))} finite numbers"
            )

    @staticmethod
    def of_fov(width: int, height: int, fov: float) -> Camera:
        """The camera of square pixels with this horizontal field of view, degrees, its axis through the middle."""
        if not 1 <= fov <= 170:
            raise ValueError(f"--fov is {fov:g}, expected the horizontal field of view in degrees, 1 to 170")
        focal = width / 2 / math.tan(math.radians(fov) / 2)
        return Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)

    @staticmethod
    def unknown(width: int, height: int) -> Camera:
        """A camera that nothing is known of: USUAL_FOV along the longer side of its image."""
        focal = Camera.of_fov(max(width, height), 1, USUAL_FOV).fx
        return Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2, focal_known=False)

    @property
    def fov(self) -> float:
        """Horizontal field of view, degrees."""
        return math.degrees(2 * math.atan(self.width / 2 / self.fx))

    @property
    def in_words(self) -> str:
        """Its numbers, for messages."""
        numbers = ", ".join(f"{name} {getattr(self, name):.6g}" for name in ("fx", "fy", "cx", "cy"))
        return f"{self.width}x{self.height}, {numbers}"

    @property
    def K(self) -> np.ndarray:
        """(3, 3) float64 intrinsic matrix."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], dtype=np.float64)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width), as NumPy counts an image."""
        return self.height, self.width

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels (..., 2) of camera-frame points (..., 3) in metres; no test of visibility or distortion."""
        z = points[..., 2]
        return np.stack([self.fx * points[..., 0] / z + self.cx, self.fy * points[..., 1] / z + self.cy], axis=-1)

    def backproject(self, depth: np.ndarray) -> np.ndarray:
        """Vertex map (H, W, 3), camera frame, metres, of a depth image (H, W); zero where depth is zero."""
        if depth.shape != self.shape:
            raise ValueError(f"depth is {depth.shape[1]}x{depth.shape[0]}, the camera {self.width}x{self.height}")
        u = (np.arange(self.width, dtype=depth.dtype) - depth.dtype.type(self.cx)) / depth.dtype.type(self.fx)
        v = (np.arange(self.height, dtype=depth.dtype) - depth.dtype.type(self.cy)) / depth.dtype.type(self.fy)
        return np.stack([u[None, :] * depth, v[:, None] * depth, depth], axis=-1)

    def pixels_of(self, rays: np.ndarray) -> np.ndarray:
        """Pixels (..., 2) of rays (..., 2), x / z and y / z; no distortion."""
        return rays * [self.fx, self.fy] + [self.cx, self.cy]

    def points(self, pixels: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """(N, 3) metres, camera frame, of pixels (N, 2) at depths (N,) along z."""
        x = (pixels - [self.cx, self.cy]) / [self.fx, self.fy]
        return np.column_stack([x, np.ones(len(x))]) * depth[:, None]

    def flow(self, pixels: np.ndarray, depth: np.ndarray | float, twist: np.ndarray) -> np.ndarray:
        """(..., 2) pixels a second, by which what pixels (..., 2) show at a depth (...) along z moves in the image.

        twist: (6,) or (..., 6) a second of the camera, in its own frame; what it sees stands still: X' = -(v + w x X).
        """
        x, y = np.moveaxis((pixels - [self.cx, self.cy]) / [self.fx, self.fy], -1, 0)
        vx, vy, vz, wx, wy, wz = np.moveaxis(np.asarray(twist), -1, 0)
        right, down, ahead = vx / depth + wy - wz * y, vy / depth + wz * x - wx, vz / depth + wx * y - wy * x
        return np.stack([self.fx * (x * ahead - right), self.fy * (y * ahead - down)], axis=-1)

    def elapsed(self, pixels: np.ndarray, readout: np.ndarray) -> np.ndarray:
        """(...) seconds from an image's moment, that of its middle, to that at which pixels (..., 2) of it were read.

        readout: (2,) seconds from the first column to the last one, and from the first row to the last one.
        """
        return ((pixels + 0.5) / [self.width, self.height] - 0.5) @ readout

    def resized(self, width: int, height: int) -> Camera:
        """This camera after its image is resized.

        The half pixels keep pixel centres on pixel centres; without them a map
        built at half resolution is shifted by a quarter of a pixel.
        """
        sx, sy = width / self.width, height / self.height
        return replace(
            self,
            width=width,
            height=height,
            fx=self.fx * sx,
            fy=self.fy * sy,
            cx=(self.cx + 0.5) * sx - 0.5,
            cy=(self.cy + 0.5) * sy - 0.5,
        )

    def is_like(self, other: Camera) -> bool:
        """Whether the images of both show the same, in whatever size, but for what a lens moves when it focuses."""
        if not same_aspect(self.shape, other.shape):
            return False
        mine = self.resized(other.width, other.height)
        shifts = (mine.fx - other.fx) / other.fx, (mine.fy - other.fy) / other.fy, (mine.cx - other.cx) / other.width
        return max(map(abs, (*shifts, (mine.cy - other.cy) / other.height))) < FOCUSING

    def of_width(self, width: int) -> Camera:
        """This camera after its image is resized to a width, as high as keeps its shape; itself where it is so wide."""
        return self if width == self.width else self.resized(width, round(self.height * width / self.width))

    def with_focal(self, focal: float) -> Camera:
        """This camera with another focal length along x, in pixels, which is known."""
        return replace(self, fx=focal, fy=focal * self.fy / self.fx, focal_known=True)

    def undistorted(self) -> Camera:
        """The same intrinsics without distortion: the camera of an image that `undistort` returned."""
        return replace(self, distortion=None, fisheye=False)

    def undistort(self, image: np.ndarray, nearest: bool = False) -> np.ndarray:
        """An image (H, W, ...) without this camera's distortion; `nearest` for depth and labels.

        Outside the recorded image the result is 0.
        """
        if self.distortion is None:
            return image
        import cv2

        return cv2.remap(image, *_undistortion(self), cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR)

    def undistorted_rays(self) -> np.ndarray:
        """(H, W, 2) float64: x / z and y / z of what each recorded pixel shows, the lens's distortion undone."""
        u, v = np.meshgrid(np.arange(self.width, dtype=np.float64), np.arange(self.height, dtype=np.float64))
        return self.rays_of(np.stack([u, v], axis=-1))

    def rays_of(self, pixels: np.ndarray) -> np.ndarray:
        """(..., 2) float64: x / z and y / z of what recorded pixels (..., 2) show, the lens's distortion undone."""
        import cv2

        distortion = np.zeros(4) if self.distortion is None else np.asarray(self.distortion)
        undo = cv2.fisheye.undistortPoints if self.fisheye else cv2.undistortPoints
        return undo(np.asarray(pixels, np.float64).reshape(-1, 1, 2), self.K, distortion).reshape(pixels.shape)


def is_fisheye(model: str) -> bool:
    """Whether a distortion model, by the name that a calibration gives it, is the fisheye's; ValueError if unknown."""
    name = model.lower()
    if any(word in name for word in ("equi", "fisheye", "kannala", "kb4")):
        return True
    if name and not any(word in name for word in ("tan", "plumb", "rational", "brown", "opencv", "none")):
        raise ValueError(
            f"distortion model {model!r} is not read: known are radial-tangential (plumb_bob, rational_polynomial) and "
            f"fisheye (equidistant, Kannala-Brandt); undistort the images, and give their camera with --camera"
        )
    return False


@lru_cache(maxsize=4)
def _undistortion(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Where the pixels of the undistorted image are in the recorded one: (H, W) u and v, float32."""
    import cv2

    init = cv2.fisheye.initUndistortRectifyMap if camera.fisheye else cv2.initUndistortRectifyMap
    K, size = camera.K, (camera.width, camera.height)
    u, v = init(K, np.asarray(camera.distortion), np.eye(3), K, size, cv2.CV_32FC1)
    return u, v
