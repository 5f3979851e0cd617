"""The camera's pose, frame by frame: where it should be, where it is, whether to believe it, and where it is again."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from semslam import poses
from semslam.frame import Frame, Observation, Tracking, View
from semslam.stage import Stage
from semslam.tracking.features import Features, features_of, packed, pose_from, unpacked
from semslam.tracking.noise import NoiseEstimate
from semslam.tracking.places import Places, described
from semslam.tracking.registration import Registrar, Registration, RegistrationConfig
from semslam.tracking.relocalisation import Ferns, Keyframes
from semslam.trajectory import Correction

logger = logging.getLogger(__name__)
CALM = 5  # good frames after which a poor spell is over
DOUBT = 0.3  # less evidence than usual from which features are asked
SETTLED = (0.03, np.radians(1.5))  # metres and radians that registering once more may move a pose found from far away
APART = 100.0  # metres between the worlds of sub-maps, along x, besides what they span: nobody sees so far
FARTHEST = 5_000.0  # metres from the origin at which no further sub-map begins
LIKENESS = 0.7  # correlation with what the map shows from which an image confirms its pose
Predict = Callable[[np.ndarray], View]  # T_world_camera -> what the map shows from there
Propose = Callable[[Observation], Sequence[np.ndarray]]  # where a lost camera may be, T_world_camera, likeliest first


@dataclass(frozen=True)
class TrackingConfig:
    """How frames are registered, when they count as lost, and when a lost camera counts as found."""

    registration: RegistrationConfig = field(default_factory=RegistrationConfig)
    min_points: int = 500  # points: of the model, seen with depth in the live frame, at least
    min_fitting: float = 0.45  # share of those points that must fit for the frame to be fused
    max_residual: float = 2.5  # standard deviations: of the sensor's noise as measured, at most, for it to be fused
    min_correlation: float = 0.5  # correlation of the image with the map, at least, for it to be fused
    lost_evidence: float = 0.9  # share that fits plus correlation: with less the pose is lost
    lost_residual: float = 6.0  # standard deviations: of the sensor's noise; with more the pose is lost
    max_step: float = 0.3  # metres: between the expected pose and the result, at most
    max_turn_deg: float = 30.0  # degrees: between the expected pose and the result, at most
    max_std: float = 0.1  # metres and radians: what may add up over frames that do not determine the pose
    keyframe_distance: float = 0.1  # metres: from the last keyframe to the next
    keyframe_turn_deg: float = 6.0  # degrees: from the last keyframe to the next, if it is nearer
    candidates: int = 4  # keyframes: how many that look alike are tried for a lost frame
    found_fitting: float = 0.5  # share of the map in view that must fit for a lost camera to be found
    found_residual: float = 2.5  # standard deviations: of the sensor's noise, at most, for a lost camera to be found
    found_correlation: float = 0.65  # correlation of the image with the map, at least, for a lost camera to be found
    feature_std: float = 0.02  # metres: what a motion found from features alone may be wrong by
    gap: float = 0.5  # seconds: so long without a pose, motion says nothing, and a pose must fit as a found one
    measure_noise: bool = True  # whether the sensor's noise follows what the recording says
    new_map_after: float = 1.0  # seconds: lost so long, a camera that sees something begins a sub-map; 0 = never
    black: float = 8.0  # grey levels: mean of an image that shows nothing, if the map there is brighter by far


class Tracker(Stage):
    """Tracks one camera against the map; a `Track` for `Slam`. Keeps the motion so far and the keyframes.

    A lost frame moves neither the last pose nor the keyframes: the next one is expected at the last good pose, and
    every frame is compared with the keyframes until one fits or, after `new_map_after` seconds, begins a sub-map.
    """

    def __init__(
        self,
        config: TrackingConfig | None = None,
        *,
        refine: bool = False,
        propose: Propose | None = None,
        places: Places | None = None,
    ) -> None:
        """refine: expect the motion that the frames' own poses tell, instead of constant velocity. propose: what else
        is tried where keyframes and places do not find a lost camera, and by which a new camera finds a map that
        exists. places: those that the map is seen from, which `Slam` adds to."""
        self.config = config or TrackingConfig()
        self.refine = refine
        self.propose = propose
        self.places = Places() if places is None else places
        self.keyframes = Keyframes(Ferns())
        registration = self.config.registration
        self.noise = NoiseEstimate(registration.noise, registration.noise_quadratic)
        self._reference: _Reference | None = None  # the last frame whose pose is beyond doubt
        self._usual = 1.0  # mean evidence of good frames
        self._told = "good"  # the last state that was told
        self._calm = 0  # frames that are good since
        self._registrar: Registrar | None = None
        self._last: tuple[float, np.ndarray] | None = None  # seconds, T_world_camera
        self._last_given: np.ndarray | None = None  # the data set's pose of that frame
        self._last_index = 0  # of that frame
        self._velocity: np.ndarray | None = None  # (6,) twist a second, camera frame
        self._interval = 0.0  # seconds between the last two frames
        self._unmeasured = 0.0  # metres squared: variance added up over frames that did not determine the pose
        self._time_warned = False
        self.lost = False
        self.submaps: list[tuple[int, int]] = []  # frames with which the sub-map changes, and to which number
        self._lost_since: float | None = None  # seconds

    def __call__(self, observation: Observation, predict: Predict) -> Tracking:
        """Find the frame's pose against the map, and remember it."""
        frame = observation.frame
        straight, doubtful = None, False
        if self._last is None:
            in_a_map = len(self.keyframes) > 0  # see `begin_lost`
            found = self._found(observation, predict) if self.propose or in_a_map else None
            tracking = found or self._first(observation)
            placed = found is None and (self.propose is not None or in_a_map)
            if placed and (in_a_map or len(predict(tracking.T_world_camera).points)):
                tracking = replace(tracking, ok=False, reason="the camera was not found in the map that exists")
                tracking = (self._begun(observation) if in_a_map else None) or tracking
        else:
            # The map was last seen from there: its view needs no new projection.
            expected = self.predicted_pose(observation)
            assert expected is not None
            view = predict(self._last[1])
            tracking = self.track(observation, view, expected)
            straight = tracking
            # True for nan, too: a flat view confirms nothing
            doubtful = not (tracking.state == "good" and tracking.evidence >= self._usual - DOUBT)
            if doubtful and observation.color.mean() >= self.config.black:
                tracking = self._carried(observation, predict, tracking)
            if not tracking.ok:
                tracking = self._found(observation, predict) or self._begun(observation) or tracking
        if tracking.ok:
            self._lost_since = None
            jumped = straight is not None and tracking is not straight
            self._enter(frame.index, tracking, jumped or self.lost)
            self._moved_to(frame, tracking.T_world_camera)
            if jumped:
                self._velocity = None
            if tracking.sound:
                self._usual += 0.05 * (tracking.evidence - self._usual)
            if tracking.sound and (tracking.submap or not doubtful):  # what begins a sub-map is all that it has
                self._reference = _Reference(tracking.T_world_camera, observation, None)
                self._keep(observation, tracking.T_world_camera)
        elif self._lost_since is None:
            self._lost_since = frame.timestamp
        self._tell(observation, tracking)
        self.lost = not tracking.ok
        measured = (self.noise.base, self.noise.quadratic) if self.config.measure_noise else None
        return replace(tracking, noise=measured, submap=self.submap_of(frame.index))

    def _tell(self, observation: Observation, tracking: Tracking) -> None:
        """Say once that the state has changed, and why; a good frame between poor ones is no change."""
        frame, state = observation.frame, tracking.state
        self._calm = self._calm + 1 if state == "good" else 0
        if state == self._told or (state == "good" and self._told == "poor" and self._calm < CALM):
            return
        if state == "good":
            what = "good again" if self._told == "poor" else "found again"
            if tracking.submap:
                what = "begun anew, in a part of the map that has not met the others yet"
        else:
            what = f"{state}: {tracking.reason}"
        level = logging.INFO if "poor" in (state, self._told) and "lost" not in (state, self._told) else logging.WARNING
        logger.log(level, "frame %d at %.3f s: tracking is %s", frame.index, frame.timestamp, what)
        self._told = state

    def submap_of(self, index: int) -> int:
        """The number of the sub-map that the pose of a frame, from its index, is in."""
        k = bisect_right(self.submaps, index, key=lambda entry: entry[0]) - 1
        return self.submaps[max(k, 0)][1] if self.submaps else 0

    @property
    def apart(self) -> bool:
        """Whether there are sub-maps that have not met."""
        return len({number for _, number in self.submaps}) > 1

    def _enter(self, index: int, tracking: Tracking, jumped: bool) -> None:
        """Note in which sub-map a tracked frame is. jumped: not simply followed from the last one."""
        if not self.submaps:
            self.submaps.append((index, 0))
        elif jumped:
            number = tracking.submap
            if not number and len(self.keyframes):  # found in the map, not begun
                positions = np.stack(self.keyframes.T_world_camera)[:, :3, 3]
                nearest = int(np.linalg.norm(positions - tracking.T_world_camera[:3, 3], axis=1).argmin())
                number = self.submap_of(self.keyframes.indices[nearest])
            if number != self.submaps[-1][1]:
                self.submaps.append((index, number))

    def _begun(self, observation: Observation) -> Tracking | None:
        """A new sub-map, if the camera has been lost for long, and sees enough to begin one; else None.

        Its world begins far away from all others, so that nothing meets by accident what loops have not joined.
        """
        c, frame = self.config, observation.frame
        lost_for = 0.0 if self._lost_since is None else frame.timestamp - self._lost_since
        measured = int(np.count_nonzero(observation.depth))
        if c.new_map_after <= 0 or lost_for < c.new_map_after or not self.keyframes.indices:
            return None
        if measured < max(c.min_points, 0.2 * observation.depth.size) or observation.color.std() < 2 * c.black:
            return None
        T = np.eye(4)
        T[0, 3] = max(float(pose[0, 3]) for pose in self.keyframes.T_world_camera) + APART
        if T[0, 3] > FARTHEST:
            return None
        number = 1 + max(number for _, number in self.submaps)
        self._unmeasured, self._reference = 0.0, None
        return Tracking(T, ok=True, inliers=measured, submap=number)

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
        found = self.register(observation, view, T_prior)
        self._unmeasured = self._unmeasured + found.std**2 if found.std > 0.01 else 0.0
        away = self._last is not None and abs(observation.frame.timestamp - self._last[0]) > self._gap
        lost = self._why_lost(found, T_prior)
        if not lost and away and not self.refine and not fits(found, self.config):
            lost = f"no pose for more than {self._gap:.1f} s, and the map does not fit well enough"
        if not lost and self.lost and (poor := self._why_poor(found)):
            lost = poor  # the search starts from a guess: half a fit is none
        tracking = self._tracking(found, lost)
        correlation = found.comparison.correlation
        if self.config.measure_noise and tracking.ok and (tracking.sound or correlation >= LIKENESS):
            self.noise.learn(found.comparison.depth, found.comparison.residual)
        return tracking

    def _why_lost(self, found: Registration, T_prior: np.ndarray) -> str:
        """Why a registration is no pose of the camera; empty where it is one."""
        c = self.config
        step = poses.inverse(T_prior) @ found.T_world_camera
        moved, turned = float(np.linalg.norm(step[:3, 3])), np.degrees(poses.rotation_angle(step))
        likeness = found.comparison.correlation
        alike = likeness >= LIKENESS  # false where the view is flat
        if found.measured < c.min_points and not (alike and found.std < 0.01):
            return f"only {found.measured} points of the map are in view with depth (at least {c.min_points})"
        evidence = 2 * found.fitting if np.isnan(likeness) else found.fitting + likeness
        if evidence < c.lost_evidence:
            return f"only {100 * found.fitting:.0f} % of the map in view fits, and the image does not look like it"
        if found.geometry.spread > c.lost_residual:
            return f"residual is {found.geometry.spread:.1f} times the sensor's noise (at most {c.lost_residual:g})"
        if self._unmeasured > c.max_std**2:
            return f"nothing determines the pose: uncertain by {self._unmeasured**0.5:.2f} m (at most {c.max_std:g})"
        if moved > c.max_step or turned > c.max_turn_deg:
            return f"jump of {moved:.2f} m and {turned:.0f} degrees from the expected pose"
        return ""

    def _why_poor(self, found: Registration) -> str:
        """Why a pose that holds is not good enough to fuse the frame; empty where it is."""
        c, black = self.config, self.config.black
        if found.live_grey < black and found.model_grey >= 2 * black + 4 * found.live_grey:
            return "the image is black where the map is not; the pose is from the depth alone, nothing is fused"
        few = found.comparison.correlation < LIKENESS or found.measured < 0.2 * c.min_points
        if found.measured < c.min_points and few:
            return f"only {found.measured} points of the map are in view with depth; the pose is from the image"
        if found.fitting < c.min_fitting:
            return f"only {100 * found.fitting:.0f} % of the map in view fits (at least {100 * c.min_fitting:.0f} %)"
        if found.geometry.spread > c.max_residual:
            return f"residual is {found.geometry.spread:.1f} times the sensor's noise (at most {c.max_residual:g})"
        if found.comparison.correlation < c.min_correlation:
            return f"the image hardly looks like the map there (correlation {found.comparison.correlation:.2f})"
        return ""

    @property
    def _gap(self) -> float:
        """Seconds that are a gap: far more than between the last frames, whatever their rate."""
        return max(self.config.gap, 3 * self._interval)

    def register(self, observation: Observation, view: View, T_prior: np.ndarray) -> Registration:
        """Register without judging; for those who have their own reasons to believe or not."""
        if self._registrar is None or self._registrar.camera != observation.camera:
            self._registrar = Registrar(observation.camera, self.config.registration)
        self._registrar.noise = self.noise.base, self.noise.quadratic
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
        if correction.joined is not None:
            gone, into = correction.joined
            self.submaps = [(index, into if number == gone else number) for index, number in self.submaps]
        if self._reference is not None:  # of the last frame, or shortly before it
            T = self._reference.T_world_camera
            self._reference.T_world_camera = poses.orthonormalized(correction.corrected([self._last_index], T[None])[0])

    def begin_lost(self, keyframes: Keyframes) -> None:
        """Begin in a map that exists, with its keyframes, at least one; where in it is not known."""
        self.keyframes, self.lost, self._told = keyframes, True, "poor"  # where it is found is no warning
        self.submaps = [(keyframes.indices[0], 0)]

    def forget_places(self) -> None:
        """Forget what the places seen so far looked like: a lost camera is not found by them any more."""
        self.keyframes, self._reference = Keyframes(self.keyframes.ferns), None
        self.places.restore(Places().state())

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
            "usual": np.array(self._usual),
            "told": np.array(self._told),
            "calm": np.array(self._calm),
            "submaps": np.array(self.submaps, np.int64).reshape(-1, 2),
            "lost_since": np.array(np.nan if self._lost_since is None else self._lost_since),
            **{f"noise_{name}": value for name, value in self.noise.state().items()},
            **(self._reference.state() if self._reference is not None else {}),
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
        self._usual = float(state["usual"])
        self._told, self._calm = str(state["told"]), int(state["calm"])
        self.submaps = [(int(index), int(number)) for index, number in state.get("submaps", ())]
        since = float(state.get("lost_since", np.nan))
        self._lost_since = None if np.isnan(since) else since
        self.noise.restore({k[len("noise_") :]: v for k, v in state.items() if k.startswith("noise_")})
        self._reference = _Reference.restored(state) if "reference_pose" in state else None
        self.keyframes.restore({k[len("keyframe_") :]: v for k, v in state.items() if k.startswith("keyframe_")})
        if not self.submaps and len(self.keyframes):  # of a version that kept one map
            self.submaps = [(self.keyframes.indices[0], 0)]

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

    def _carried(self, observation: Observation, predict: Predict, tracking: Tracking) -> Tracking:
        """A doubtful pose beside what sparse features say of the motion since the last good frame.

        Where registration started from there is better, that; where nothing registers, the features alone, for as
        long as the uncertainty that adds up allows. Else the pose as it was.
        """
        c, reference = self.config, self._reference
        if reference is None:
            return tracking
        live = features_of(observation.color, observation.depth, observation.camera)
        by_features = pose_from(reference.features(), live, observation.camera)
        if by_features is None or not by_features.believable:
            return tracking
        T = reference.T_world_camera @ by_features.T_known_live
        found = self.register(observation, predict(T), T)
        lost = self._why_lost(found, T)
        again = self._tracking(found, lost)
        if again.ok and (not tracking.ok or again.evidence > tracking.evidence + 0.05):
            return again
        if tracking.ok:
            return tracking
        self._unmeasured += c.feature_std**2
        if self._unmeasured > c.max_std**2:
            return tracking
        reason = f"{tracking.reason}; the pose is carried over by {by_features.inliers} features"
        return Tracking(T, ok=True, inliers=by_features.inliers, reason=reason, sound=False)

    def _found(self, observation: Observation, predict: Predict) -> Tracking | None:
        """The pose of a lost frame by the keyframes that look like it, or by what is proposed, or None."""
        for T in self._candidates(observation):
            found = self.settled(observation, predict, T)
            if found is not None:
                self._unmeasured = 0.0
                return self._tracking(found, "")
        return None

    def settled(self, observation: Observation, predict: Predict, T_near: np.ndarray) -> Registration | None:
        """The pose of an observation near a guess; None where the map does not fit there, or leads elsewhere when it is
        seen from the pose found."""
        first = self.register(observation, predict(T_near), T_near)
        if not fits(first, self.config):
            return None
        T = first.T_world_camera
        second = self.register(observation, predict(T), T)
        moved = poses.inverse(T) @ second.T_world_camera
        close = np.linalg.norm(moved[:3, 3]) < SETTLED[0] and poses.rotation_angle(moved) < SETTLED[1]
        return second if close and fits(second, self.config) else None

    def _candidates(self, observation: Observation) -> Iterator[np.ndarray]:
        """Where a lost camera may be: at keyframes that look alike, and where features of places are found again."""
        keyframes = self.keyframes
        for k in keyframes.nearest(keyframes.ferns.code(observation), self.config.candidates):
            yield keyframes.T_world_camera[k]
        if len(self.places) and observation.color.mean() >= self.config.black:
            for found in self.places.candidates(described(observation.color, observation.camera)):
                yield found.T_world_camera
        if self.propose is not None:  # asked last: it may cost a network
            yield from self.propose(observation)

    def _keep(self, observation: Observation, T: np.ndarray) -> None:
        """Make the frame a keyframe if it is far enough from the last one."""
        c, keyframes = self.config, self.keyframes
        if len(keyframes):
            step = poses.inverse(keyframes.T_world_camera[-1]) @ T
            near = np.linalg.norm(step[:3, 3]) < c.keyframe_distance
            if near and poses.rotation_angle(step) < np.radians(c.keyframe_turn_deg):
                return
        keyframes.add(observation.frame.index, T, keyframes.ferns.code(observation))

    def _tracking(self, found: Registration, lost: str) -> Tracking:
        poor = "" if lost else self._why_poor(found)
        likeness = found.comparison.correlation
        return Tracking(
            T_world_camera=found.T_world_camera,
            ok=not lost,
            inliers=found.geometry.count,
            residual=found.geometry.rms,
            covariance=found.covariance,
            reason=lost or poor,
            sound=not poor,
            evidence=2 * found.fitting if np.isnan(likeness) else found.fitting + likeness,
        )


def fits(found: Registration, config: TrackingConfig) -> bool:
    """Whether a pose that was searched far from where the camera was known to be is to be believed."""
    likeness = found.comparison.correlation
    return (
        found.measured >= 2 * config.min_points
        and found.measured >= 0.15 * found.visible
        and found.fitting >= config.found_fitting
        and found.geometry.spread <= config.found_residual
        and found.std < 0.01
        and (likeness >= config.found_correlation or (np.isnan(likeness) and found.fitting >= 0.7))
    )


class _Reference:
    """The last frame whose pose is beyond doubt; its features are found when they are needed."""

    def __init__(self, T_world_camera: np.ndarray, observation: Observation | None, features: Features | None) -> None:
        self.T_world_camera = T_world_camera
        # depth is a working image of fusion
        self._observation = None if observation is None else replace(observation, depth=observation.depth.copy())
        self._features = features

    def features(self) -> Features:
        if self._features is None:
            assert self._observation is not None
            seen = self._observation
            self._features = features_of(seen.color, seen.depth, seen.camera)
        return self._features

    def state(self) -> dict[str, np.ndarray]:
        return {
            "reference_pose": self.T_world_camera,
            **{f"reference_{name}": value for name, value in packed([self.features()]).items()},
        }

    @staticmethod
    def restored(state: dict[str, np.ndarray]) -> _Reference:
        arrays = {k[len("reference_") :]: v for k, v in state.items() if k.startswith("reference_")}
        return _Reference(arrays["pose"], None, unpacked(arrays)[0])
