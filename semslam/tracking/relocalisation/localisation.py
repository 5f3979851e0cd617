"""Where an image was taken in a finished map: proposed by places, measured against what the map shows, or not found."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.engine.fusion import Fusion, FusionConfig
from semslam.engine.surfels import SurfelMap
from semslam.frame import Frame, Observation, View
from semslam.images.resizing import resized_depth
from semslam.tracking.judgement import TrackingConfig, fits
from semslam.tracking.registration.registrar import Registrar
from semslam.tracking.relocalisation.places import Places, described
from semslam.tracking.relocalisation.resection import FOCAL_STD, Located

WIDEST = 640  # pixels: images are compared with the map at most so wide
DRIFT = (0.05, np.radians(2.5))  # metres and radians that comparing may move what features found, besides its deviation
SEEN = 0.1  # share of the image in which the map shows something, at least
# Times the standard deviations that independent errors would have, by features and by depth: neighbours err together,
# and with the map. Seen on four recordings, medians: 1.2 to 2.5, and 0.9 to 7.8 where depth or map bend.
ERRORS_TOGETHER = 2.3, 3.0
SURE = 20.0  # inliers of a pose that features alone make believable; below, the map has to look more like the image
OTHER_UNIT = 1.25  # times, at least, that the depth of an image is larger or smaller than the map's, to be told
ONE_FACTOR = 0.05  # how far, in the median, single readings may be from the one factor, of it
FEWEST_READINGS = 100
USUAL_FACTORS = np.array([0.001, 0.01, 0.1, 0.2, 0.25, 0.5, 2, 4, 5, 10, 100, 1000])  # between units of depth
CAMERAS = 4  # of which what is needed to compare with the map is kept
LIKENESS = 0.8  # correlation with the map that fewer inliers need


@dataclass(frozen=True, eq=False)
class Localisation:
    """Where an image was taken, or why that is not known."""

    T_world_camera: np.ndarray | None  # (4, 4) relative to the origin of the map; None: not found
    confidence: float = 0.0  # 0..1, see `Localiser.locate`
    inliers: int = 0  # features that agree with the pose
    std_m: float = float("nan")  # standard deviation of the position, metres
    std_deg: float = float("nan")  # and of the orientation
    focal: float | None = None  # pixels, of an unknown lens that is clearly not the one that was guessed
    reason: str = ""  # why it was not found, for people


class Localiser:
    """Finds images in a map; several of one camera one after the other are quicker."""

    def __init__(self, surfels: SurfelMap, places: Places, fusion: FusionConfig, tracking: TrackingConfig) -> None:
        """fusion, tracking: settings that the map was made with."""
        self.surfels, self.places, self.config = surfels, places, tracking
        self._fusion_config = fusion
        self._tools_of = lru_cache(maxsize=CAMERAS)(self._tools_for)

    def locate(self, frame: Frame) -> Localisation:
        """The pose of a frame, from its colour and, where it has any, its depth.

        Features found again in the map's places propose at most two poses. One is accepted only where the map, seen
        from there, looks like the image, and, with depth, where it also fits as a lost camera's has to. Without depth
        comparing the images only verifies: features of a few pixels are surer than grey levels under another light.
        The confidence is (1 - exp(-inliers / SURE)) times the correlation of the image with the map, and where the
        camera is a guess times the share of what was not known of its focal length that the features tell.
        """
        observation = self._observation(frame)
        best, tried = 0, []
        for found in self.places.candidates(described(observation.color, observation.camera)):
            best = max(best, found.inliers)
            tried.append(found)
            as_guessed = found.zoom == (1, 1)
            accepted = self._verified(found, observation if as_guessed else self._observation(_zoomed(frame, found)))
            if accepted is not None:
                return accepted if as_guessed else replace(accepted, focal=frame.camera.fx * found.zoom[0])
        if not best:
            return Localisation(None, reason="hardly anything in it is found again in the map")
        if frame.depth is not None and (factor := self._other_unit(tried, frame)):
            return Localisation(
                None,
                reason=f"colour alone finds it (--no-depth), but its depth is {factor:g} times that of the map; "
                f"make --depth-scale (units per metre) {factor:g} times as large, unless the map was made from colour "
                f"alone: then its own size is a guess (--scale-from)",
            )
        return Localisation(None, reason=f"{best} features agree, but the map there does not look like the image")

    def _other_unit(self, candidates: list[Located], frame: Frame) -> float | None:
        """How many times the map's depth that of a frame is, where colour alone finds it; None where it is not found,
        or no one factor, far from 1, lies between the two."""
        assert frame.depth is not None
        for found in candidates:
            plain = self._observation(_zoomed(without_depth(frame), found))
            if (located := self._verified(found, plain)) is not None and located.T_world_camera is not None:
                break
        else:
            return None
        view, (height, width) = self._view(located.T_world_camera, plain.camera), frame.depth.shape
        u, v = ((view.pixels + 0.5) * (width / plain.camera.width, height / plain.camera.height)).astype(int).T
        read = frame.depth[v, u]
        there = read > 0
        if there.sum() < FEWEST_READINGS:
            return None
        ratios = np.log(read[there] / view.points[there, 2])
        middle = float(np.median(ratios))
        if abs(middle) < np.log(OTHER_UNIT) or np.median(np.abs(ratios - middle)) > ONE_FACTOR:
            return None
        usual = float(USUAL_FACTORS[np.argmin(np.abs(np.log(USUAL_FACTORS) - middle))])
        return usual if abs(np.log(usual) - middle) < ONE_FACTOR else float(f"{np.exp(middle):.2g}")

    def _observation(self, frame: Frame) -> Observation:
        camera, scale = frame.camera, max(1.0, frame.camera.width / WIDEST)
        color, depth = frame.color, frame.depth
        if scale > 1:
            import cv2

            camera = camera.resized(round(camera.width / scale), round(camera.height / scale))
            size = (camera.width, camera.height)
            color = cv2.resize(color, size, interpolation=cv2.INTER_AREA)
            depth = None if depth is None else resized_depth(depth, size)
        if depth is None:
            flat = np.zeros((*camera.shape, 3), np.float32)
            return Observation(frame, camera, color, np.zeros(camera.shape, np.float32), normals=flat)
        return self._tools_of(camera)[0].prepare(Observation(frame, camera, color, depth))

    def _tools_for(self, camera: Camera) -> tuple[Fusion, Registrar]:
        return Fusion(camera, self._fusion_config), Registrar(camera, self.config.registration)

    def _verified(self, found: Located, observation: Observation) -> Localisation | None:
        """A pose that the map confirms; None where it does not."""
        T, camera = found.T_world_camera, observation.camera
        registrar, view = self._tools_of(camera)[1], self._view(T, camera)
        if len(view.points) * view.stride**2 < SEEN * camera.width * camera.height:
            return None
        compared = registrar.register(observation, view, T)
        has_depth = bool(observation.depth.any())
        if has_depth:
            T = compared.T_world_camera
            compared = registrar.register(observation, self._view(T, camera), T)
            T = compared.T_world_camera
        likeness = compared.comparison.correlation
        needed = self.config.found_correlation if found.inliers >= SURE else LIKENESS
        if not likeness >= needed or (has_depth and not fits(compared, self.config)):
            return None
        covariance = compared.covariance if has_depth else found.covariance
        together = ERRORS_TOGETHER[1 if has_depth else 0]
        std_m, std = (together * float(np.sqrt(np.trace(part))) for part in (covariance[:3, :3], covariance[3:, 3:]))
        moved = poses.inverse(found.T_world_camera) @ compared.T_world_camera
        by_features = [float(np.sqrt(np.trace(part))) for part in (found.covariance[:3, :3], found.covariance[3:, 3:])]
        allowed = DRIFT[0] + 3 * by_features[0], DRIFT[1] + 3 * by_features[1]
        if np.linalg.norm(moved[:3, 3]) > allowed[0] or poses.rotation_angle(moved) > allowed[1]:
            return None
        confidence = (1 - np.exp(-found.inliers / SURE)) * likeness * (1 - found.focal_std / FOCAL_STD)
        return Localisation(T, float(confidence), found.inliers, std_m, float(np.degrees(std)))

    def _view(self, T_world_camera: np.ndarray, camera: Camera) -> View:
        return self._tools_of(camera)[0].predict(self.surfels, T_world_camera)


def _zoomed(frame: Frame, found: Located) -> Frame:
    """The frame, taken by the camera that a pose was found with."""
    fx, fy = frame.camera.fx * found.zoom[0], frame.camera.fy * found.zoom[1]
    return replace(frame, camera=replace(frame.camera, fx=fx, fy=fy))


def without_depth(frame: Frame) -> Frame:
    """The frame as a plain camera would have taken it."""
    return replace(frame, depth=None)
