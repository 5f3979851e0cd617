"""The calibration of the Kinect that recorded NYUv2."""

from __future__ import annotations

import numpy as np

from semslam.camera import Camera

# The toolbox' calibration (camera_params.m). MATLAB counts pixels from 1, so 1 is taken off the principal points.
COLOR_CAMERA = Camera(
    640, 480, 518.85790117450188, 519.46961112127485, 325.58244941119034 - 1, 253.73616633400465 - 1,
    (0.20796615318809061, -0.58613825163911781, 7.2231363135888329e-4, 1.0479627195765181e-3, 0.49856986684705107),
)  # fmt: skip
DEPTH_CAMERA = Camera(
    640, 480, 582.62448167737955, 582.69103270988637, 313.04475870804731 - 1, 238.44389626620386 - 1,
    (-0.099897236553084481, 0.39065324602765344, 1.9290592870229277e-3, -1.9422022475975055e-3, -0.51031725053400578),
)  # fmt: skip
# As the toolbox computes it, with y and z of the translation swapped. There the rotation comes out negated, which
# the division by z cancels while it turns the translation's sign round; here the sign is put where it ends up.
T_COLOR_DEPTH = np.array(
    [
        [0.99997799, -0.00503599, -0.00431966, -2.5031875059141302e-2],
        [0.00505184, 0.99998052, 0.00366624, 2.9342312935846411e-4],
        [0.00430112, -0.00368798, 0.99998395, -6.6238747008330102e-4],
        [0, 0, 0, 1],
    ]
)
