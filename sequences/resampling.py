"""Images of one camera as another camera at the same place would have taken them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from semslam.camera import Camera
from semslam.images.resizing import SMOOTH_STEP, resized_depth


def resampled(image: np.ndarray, source: Camera, target: Camera, nearest: bool = False) -> np.ndarray:
    """An image (H, W, ...) of `source` as `target`, without distortion, sees it from the same place; 0 outside.

    `nearest` for ids, and for depth, which is the same along all rays of one optical centre.
    """
    import cv2

    image, source = source.undistort(image, nearest), source.undistorted()
    if (source.width, source.height) != (target.width, target.height):
        shrinks = target.width < source.width
        how = cv2.INTER_NEAREST_EXACT if nearest else cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        image = cv2.resize(image, (target.width, target.height), interpolation=how)
        source = source.resized(target.width, target.height)
    sx, sy = source.fx / target.fx, source.fy / target.fy
    tx, ty = source.cx - sx * target.cx, source.cy - sy * target.cy
    reach = max(abs(tx), abs(ty), abs(tx + (sx - 1) * target.width), abs(ty + (sy - 1) * target.height))
    if reach < 0.05:  # pixels, at the worst corner
        return image
    how = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    affine = np.array([[sx, 0, tx], [0, sy, ty]])
    return cv2.warpAffine(image, affine, (target.width, target.height), flags=how | cv2.WARP_INVERSE_MAP)


def resampled_depth(depth: np.ndarray, source: Camera, target: Camera) -> np.ndarray:
    """Depth (h, w) float32 m resampled like an image: interpolated on surfaces, the nearest reading at their edges."""
    depth, source = source.undistort(depth, nearest=True), source.undistorted()
    if depth.shape != target.shape:
        depth, source = resized_depth(depth, (target.width, target.height)), source.resized(target.width, target.height)
    nearest = resampled(depth, source, target, nearest=True)
    if nearest is depth:
        return depth
    there = resampled((depth > 0).astype(np.float32), source, target)
    smooth = resampled(depth, source, target)
    on_surface = (there > 0.999) & (np.abs(smooth - nearest) < SMOOTH_STEP * nearest)
    return np.where(on_surface, smooth, nearest)


def z_of_ray(ray: np.ndarray, camera: Camera) -> np.ndarray:
    """Depth (H, W) float32 m along the optical axis of distances from the optical centre, as some renderers write."""
    return ray * _z_of_unit_rays(camera)


@lru_cache(maxsize=4)
def _z_of_unit_rays(camera: Camera) -> np.ndarray:
    """(H, W) float32: the z of each pixel's unit ray, the lens's distortion taken into account."""
    x, y = camera.undistorted_rays().transpose(2, 0, 1)
    return (1 / np.sqrt(x**2 + y**2 + 1)).astype(np.float32)
