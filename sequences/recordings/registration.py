"""Depth images seen from another camera: what the sensor's second eye measured, under the first one's pixels."""

from __future__ import annotations

import numpy as np

from semslam.camera import Camera


def registered_depth(
    depth: np.ndarray, depth_camera: Camera, color_camera: Camera, T_color_depth: np.ndarray, keep_z: bool = False
) -> np.ndarray:
    """The depth image (H, W) float32 m of `depth_camera`, warped forward into the pixels of `color_camera`.

    Each reading lands on the nearest pixel, and of several the nearest to the camera stays. `keep_z` compares and
    stores the depth camera's z, as NYU's toolbox does, instead of the colour camera's. 0 = none, in and out.
    """
    from sequences.recordings.registration_kernels import splat_nearest

    v, u = np.nonzero(depth > 0)
    z = depth[v, u]
    x = (u.astype(np.float32) - np.float32(depth_camera.cx)) / np.float32(depth_camera.fx) * z
    y = (v.astype(np.float32) - np.float32(depth_camera.cy)) / np.float32(depth_camera.fy) * z
    r = T_color_depth.astype(np.float32)
    x_c, y_c, z_c = (r[k, 0] * x + r[k, 1] * y + r[k, 2] * z + r[k, 3] for k in range(3))
    z_c = np.maximum(z_c, np.float32(1e-6))
    columns = np.float32(color_camera.fx) * x_c / z_c + np.float32(color_camera.cx)
    rows = np.float32(color_camera.fy) * y_c / z_c + np.float32(color_camera.cy)
    z = z if keep_z else z_c
    return splat_nearest(columns, rows, z, z, *color_camera.shape)
