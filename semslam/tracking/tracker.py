"""The camera's pose, frame by frame: where it should be, where it is, whether to believe it, and where it is again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from semslam import poses
from semslam.frame import Frame, Observation, Tracking, View
from semslam.stage import Stage
from semslam.tracking.registration import Registrar, Registration, RegistrationConfig
from semslam.tracking.relocalisation import Ferns, Keyframes
from semslam.trajectory import Correction

logger = logging.getLogger(__name__)
Predict = Callable[[np.ndarray], View]  # T_world_camera -> what the map shows from there
Propose = Callable[[Observation], Sequence[np.ndarray]]  # where a lost camera may be, T_world_camera, likeliest first


@dataclass(frozen=True)
class TrackingConfig:
    """How frames are registered, when they count as lost, and when a lost camera counts as found."""

    registration: RegistrationConfig = field(default_factory=RegistrationConfig)
    min_points: int = 500  # points: of the model, seen with depth in the live frame, at least
    min_fitting: float = 0.45  # share of those points that must fit
    max_residual: float = 2.5  # standard deviations: of the sensor's noise, at most
    max_step: float = 0.3  # metres: between the expected pose and the result, at most
    max_turn_deg: float = 30.0  # degrees: between the expected pose and the result, at most
    max_std: float = 0.1  # metres and radians: what may add up over frames that do not determine the pose
    keyframe_distance: float = 0.1  # metres: from the last keyframe to the next
    keyframe_turn_deg: float = 6.0  # degrees: from the last keyframe to the next, if it is nearer
    candidates: int = 4  # keyframes: how many are tried for a lost frame
    found_fitting: float = 0.6  # share of the map in view that must fit for a lost camera to be found
    found_residual: float = 2.5  # standard deviations: of the sensor's noise, at most, for a lost camera to be found
    found_grey: float = 25.0  # grey levels: root mean square of the differences, at most, for a lost camera to be found
    gap: float = 0.5  # seconds: so long without a pose, motion says nothing, and a pose must fit as a found one
    black: float = 8.0  # grey levels: mean of an image that shows nothing, if the map there is brighter by far


class Tracker(Stage):
    """Tracks one camera against the map; a `Track` for `Slam`. Keeps the motion so far and the keyframes.

    A lost frame moves neither the last pose nor the keyframes: the next one is expected at the last good pose, and
    every frame is compared with the keyframes until one fits.
    """

    def __init__(
        self, config: TrackingConfig | None = None, *, refine: bool = False, propose: Propose | None = None
    ) -> None:
        """refine: expect the motion that the frames' own poses tell, instead of constant velocity. propose: what else
        is tried where the keyframes do not find a lost camera, and by which a new camera finds a map that exists."""
        self.config = config or TrackingConfig()
        self.refine = refine
        self.propose = propose
        self.keyframes = Keyframes(Ferns())
        self._registrar: Registrar | None = None
        self._last: tuple[float, np.ndarray] | None = None  # seconds, T_world_camera
        self._last_given: np.ndarray | None = None  # the data set's pose of that frame
        self._last_index = 0  # of that frame
        self._velocity: np.ndarray | None = None  # (6,) twist a second, camera frame
        self._interval = 0.0  # seconds between the last two frames
        self._unmeasured = 0.0  # metres squared: variance added up over frames that did not determine the pose
        self._time_warned = False
        self.lost = False

    def __call__(self, observation: Observation, predict: Predict) -> Tracking:
        """Find the frame's pose against the map, and remember it."""
        frame = observation.frame
        if self._last is None:
            tracking = (self._found(observation, predict) if self.propose else None) or self._first(observation)
            placed = self.propose is not None and tracking.covariance is None
            if placed and len(predict(tracking.T_world_camera).points):
                tracking = replace(tracking, ok=False, reason="the camera was not found in the map that exists")
        else:
            # The map was last seen from there: its view needs no new projection.
            expected = self.predicted_pose(observation)
            assert expected is not None
            tracking = self.track(observation, predict(self._last[1]), expected)
            if not tracking.ok:
                tracking = self._found(observation, predict) or tracking
        if tracking.ok:
            self._moved_to(frame, tracking.T_world_camera)
            if tracking.sound:
                self._keep(observation, tracking.T_world_camera)
        if self.lost == tracking.ok:
            state = "found again" if tracking.ok else f"lost: {tracking.reason}"
            logger.warning("frame %d at %.3f s: tracking is %s", frame.index, frame.timestamp, state)
        self.lost = not tracking.ok
        return tracking

    def predicted_pose(self, observation: Observation) -> np.ndarray | None:
        """T_world_camera (4, 4) where the frame is expected; None where only a proposal will tell.

        At constant velocity since the last two poses; the last pose itself where time stands still, or jumps, or the
        camera was lost: velocity says nothing there. With `refine`, the last pose moved as
        the frames' own poses move.
        """
        if self._last is None:
            T = observation.frame.T_world_camera
            return np.eye(4) if T is None and self.propose is None else T
        last, T = self._last
        given = observation.frame.T_world_camera
        if self.refine and given is not None and self._last_given is not None:
            return T @ poses.inverse(self._last_given) @ given
        elapsed = observation.frame.timestamp - last
        if self._velocity is None or self.lost or not 0 < abs(elapsed) <= self._gap:
            return T
        return T @ poses.exp(self._velocity * elapsed)

    def track(self, observation: Observation, view: View, T_prior: np.ndarray) -> Tracking:
        """The pose of an observation, which needs normals, against a view of the map, searched around T_prior."""
        c, found = self.config, self.register(observation, view, T_prior)
        away = self._last is not None and abs(observation.frame.timestamp - self._last[0]) > self._gap
        step = poses.inverse(T_prior) @ found.T_world_camera
        moved, turned = float(np.linalg.norm(step[:3, 3])), np.degrees(poses.rotation_angle(step))
        self._unmeasured = self._unmeasured + found.std**2 if found.std > 0.01 else 0.0
        reason = ""
        if found.measured < c.min_points:
            reason = f"only {found.measured} points of the map are in view with depth (at least {c.min_points})"
        elif found.fitting < c.min_fitting:
            reason = f"only {100 * found.fitting:.0f} % of the map in view fits (at least {100 * c.min_fitting:.0f} %)"
        elif found.geometry.spread > c.max_residual:
            reason = f"residual is {found.geometry.spread:.1f} times the sensor's noise (at most {c.max_residual:g})"
        elif self._unmeasured > c.max_std**2:
            reason = f"nothing determines the pose: uncertain by {self._unmeasured**0.5:.2f} m (at most {c.max_std:g})"
        elif moved > c.max_step or turned > c.max_turn_deg:
            reason = f"jump of {moved:.2f} m and {turned:.0f} degrees from the expected pose"
        elif away and not self.refine and not self.fits(found):
            reason = f"no pose for more than {self._gap:.1f} s, and the map does not fit well enough"
        return self._tracking(found, reason)

    @property
    def _gap(self) -> float:
        """Seconds that are a gap: far more than between the last frames, whatever their rate."""
        return max(self.config.gap, 3 * self._interval)

    def register(self, observation: Observation, view: View, T_prior: np.ndarray) -> Registration:
        """Register without judging; for those who have their own reasons to believe or not."""
        if self._registrar is None or self._registrar.camera != observation.camera:
            self._registrar = Registrar(observation.camera, self.config.registration)
        return self._registrar.register(observation, view, T_prior)

    def _moved_to(self, frame: Frame, T_world_camera: np.ndarray) -> None:
        """Accept a pose; the next prediction starts there."""
        self._velocity = None
        timestamp = frame.timestamp
        if self._last is not None and not self.lost:
            elapsed = timestamp - self._last[0]
            if elapsed <= 0 and not self._time_warned:
                self._time_warned = True
                logger.warning(
                    "time goes from %.3f to %.3f s: frames are doubled or unsorted", self._last[0], timestamp
                )
            if 0 < abs(elapsed) <= self._gap:  # back in time, too: frames may come in any order
                self._velocity = poses.log(poses.inverse(self._last[1]) @ T_world_camera) / elapsed
            self._interval = abs(elapsed)
        self._last, self._last_given, self._last_index = (timestamp, T_world_camera), frame.T_world_camera, frame.index

    def world_moved(self, correction: Correction) -> None:
        """Keyframes and the last pose follow the map."""
        keyframes = self.keyframes
        if len(keyframes):
            moved = correction.corrected(keyframes.indices, np.stack(keyframes.T_world_camera))
            keyframes.T_world_camera = [poses.orthonormalized(T) for T in moved]
        if self._last is not None:
            time, T = self._last
            self._last = time, poses.orthonormalized(correction.corrected([self._last_index], T[None])[0])

    def state(self) -> dict[str, np.ndarray]:
        """What has to be kept to go on later as if nothing had happened; for `restore`."""
        none = np.full((4, 4), np.nan)
        time, T = self._last if self._last is not None else (np.nan, none)
        return {
            "time": np.array(time),
            "pose": T,
            "given": none if self._last_given is None else self._last_given,
            "velocity": np.full(6, np.nan) if self._velocity is None else self._velocity,
            "interval": np.array(self._interval),
            "unmeasured": np.array(self._unmeasured),
            "lost": np.array(self.lost),
            **{f"keyframe_{name}": value for name, value in self.keyframes.state().items()},
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a `state`."""
        time = float(state["time"])
        self._last = None if np.isnan(time) else (time, state["pose"])
        self._last_given = None if np.isnan(state["given"]).any() else state["given"]
        self._velocity = None if np.isnan(state["velocity"]).any() else state["velocity"]
        self._interval = float(state["interval"])
        self._unmeasured, self.lost = float(state["unmeasured"]), bool(state["lost"])
        self.keyframes.restore({k[len("keyframe_") :]: v for k, v in state.items() if k.startswith("keyframe_")})

    def _first(self, observation: Observation) -> Tracking:
        """The first frame lies where the data set says, or where it is proposed, or at the origin; it has to show
        something."""
        T = observation.frame.T_world_camera
        if T is None and self.propose is not None:
            T = next(iter(self.propose(observation)), None)
        T = np.eye(4) if T is None else T
        measured = int(np.count_nonzero(observation.depth))
        if measured < self.config.min_points:
            return Tracking(T, ok=False, reason=f"the first frame has depth at {measured} pixels only")
        return Tracking(T, ok=True, inliers=measured)

    def _found(self, observation: Observation, predict: Predict) -> Tracking | None:
        """The pose of a lost frame by the keyframes that look like it, or by what is proposed, or None.

        Accepted only where the map as seen from the pose found, too, leads to the same pose.
        """
        for T in self._candidates(observation):
            first = self.register(observation, predict(T), T)
            if not self.fits(first):
                continue
            T = first.T_world_camera
            second = self.register(observation, predict(T), T)
            difference = poses.inverse(T) @ second.T_world_camera
            close = np.linalg.norm(difference[:3, 3]) < 0.03 and poses.rotation_angle(difference) < np.radians(1.5)
            if self.fits(second) and close:
                self._unmeasured = 0.0
                return self._tracking(second, "")
        return None

    def _candidates(self, observation: Observation) -> Iterator[np.ndarray]:
        """Where a lost camera may be."""
        code = self.keyframes.ferns.code(observation)
        for k in self.keyframes.nearest(code, self.config.candidates):
            yield self.keyframes.T_world_camera[k]
        if self.propose is not None:  # asked last: it may cost a network
            yield from self.propose(observation)

    def fits(self, found: Registration) -> bool:
        """Whether a pose found from far away is to be believed."""
        c = self.config
        return (
            found.measured >= 4 * c.min_points
            and found.measured >= 0.4 * found.visible
            and found.fitting >= c.found_fitting
            and found.geometry.spread <= c.found_residual
            and found.std < 0.01
            and found.color.rms <= c.found_grey
        )

    def _keep(self, observation: Observation, T: np.ndarray) -> None:
        """Make the frame a keyframe if it is far enough from the last one."""
        c, keyframes = self.config, self.keyframes
        if len(keyframes):
            step = poses.inverse(keyframes.T_world_camera[-1]) @ T
            near = np.linalg.norm(step[:3, 3]) < c.keyframe_distance
            if near and poses.rotation_angle(step) < np.radians(c.keyframe_turn_deg):
                return
        keyframes.add(observation.frame.index, T, keyframes.ferns.code(observation))

    def _tracking(self, found: Registration, reason: str) -> Tracking:
        black = self.config.black
        sound = found.live_grey >= black or found.model_grey < 2 * black + 4 * found.live_grey
        ok = not reason
        if ok and not sound:
            reason = "the image is black where the map is not; the pose is from the depth alone, nothing is fused"
        return Tracking(
            T_world_camera=found.T_world_camera,
            ok=ok,
            inliers=found.geometry.count,
            residual=found.geometry.rms,
            covariance=found.covariance,
            reason=reason,
            sound=sound,
        )
