"""The camera's pose, frame by frame: where it should be, where it is, whether to believe it, and where it is again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from semslam import poses
from semslam.frame import Frame, Observation, Tracking, View
from semslam.stage import Stage, prefixed, under_prefix
from semslam.tracking.features import Reference, features_of, pose_from
from semslam.tracking.judgement import Announcements, TrackingConfig, fits, judged, stays, why_lost, why_open, why_poor
from semslam.tracking.measuring import MeasuringRegistrar
from semslam.tracking.motion import Motion
from semslam.tracking.noise import SensorNoise
from semslam.tracking.registration.registrar import Registration
from semslam.tracking.relocalisation.keyframes import Ferns, Keyframes
from semslam.tracking.relocalisation.places import Places, described
from semslam.tracking.submaps import Absence, SubMaps
from semslam.trajectory import Correction

DOUBT = 0.3  # less evidence than usual from which features are asked
OPEN = 0.01  # metres and radians: standard deviation of a pose from which registration leaves it open
CHANGE = 0.05  # of the motion from one frame to the next: by how much it may change until the one after
AGAIN = 3  # times that such a pose may be registered again, each time from where it was found
Predict = Callable[[np.ndarray], View]  # T_world_camera -> what the map shows from there
Propose = Callable[[Observation], Sequence[np.ndarray]]  # where a lost camera may be, T_world_camera, likeliest first


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
        self.propose = propose
        self.places = Places() if places is None else places
        self.keyframes = Keyframes(Ferns())
        self._measuring = MeasuringRegistrar(self.config)
        self.submaps = SubMaps()
        self.lost = False
        self._motion = Motion(self.config.gap, refine)
        self._announcements = Announcements()
        self._reference: Reference | None = None  # the last frame whose pose is beyond doubt
        self._usual = 0.0  # mean evidence of good frames; 0 = there was none yet
        self._unmeasured = 0.0  # metres squared: variance added up over frames that did not determine the pose
        self._open = 0  # frames in a row that registration left open
        self._absence = Absence()

    @property
    def noise(self) -> SensorNoise:
        """The depth camera's, as measured so far."""
        return self._measuring.noise

    def __call__(self, observation: Observation, predict: Predict) -> Tracking:
        """Find the frame's pose against the map, and remember it."""
        frame = observation.frame
        if self._motion.last is None:
            tracking, followed, doubtful = self._begun_or_placed(observation, predict), True, False
        else:
            tracking, followed, doubtful = self._followed_or_found(observation, predict, self._motion.last[1])
        if tracking.ok:
            self._accept(observation, tracking, followed, doubtful)
        else:
            self._absence.lost(frame.timestamp)
        self._announcements.tell(frame, tracking)
        self.lost = not tracking.ok
        of_depth = self.noise.of_depth  # until a frame has told, fusion goes by its own setting
        measured = of_depth.model_now if self.config.measure_noise and of_depth.measured else None
        return replace(tracking, noise=measured, submap=self.submaps.of(frame.index))

    def _begun_or_placed(self, observation: Observation, predict: Predict) -> Tracking:
        """The first pose: where the data set says, or, in a map that exists, where the camera is found in it."""
        in_a_map = len(self.keyframes) > 0  # see `begin_lost`
        found = self._found(observation, predict) if self.propose or in_a_map else None
        tracking = found or self._first(observation)
        placed = found is None and (self.propose is not None or in_a_map)
        if placed and (in_a_map or len(predict(tracking.T_world_camera).points)):
            tracking = replace(tracking, ok=False, reason="the camera was not found in the map that exists")
            tracking = (self._begun(observation) if in_a_map else None) or tracking
        return tracking

    def _followed_or_found(
        self, observation: Observation, predict: Predict, T_last: np.ndarray
    ) -> tuple[Tracking, bool, bool]:
        """A pose after the last one, T_last, whether it was simply followed from there, and whether it is in doubt."""
        expected = self._motion.expected(observation.frame, self.lost)
        # The map was last seen from there: its view needs no new projection.
        followed = tracking = self.track(observation, predict(T_last), expected)
        # True for nan, too: a flat view confirms nothing
        doubtful = not (tracking.state == "good" and tracking.evidence >= self._usual - DOUBT)
        is_open = tracking.std > OPEN
        if (doubtful or is_open) and observation.color.mean() >= self.config.black:
            tracking = self._carried(observation, predict, tracking)
        is_followed = tracking is followed or is_open  # features that decide what registration leaves open are no jump
        far = self.lost or self._motion.is_gap(observation.frame)
        if far and tracking.ok and tracking.covariance is not None:
            tracking = self._confirmed(observation, predict, tracking)
        if tracking.state == "good" and self._guessed():
            tracking = replace(tracking, sound=False, reason=why_open(tracking, OPEN))
        if not tracking.ok:
            is_followed = False
            tracking = self._found(observation, predict) or self._begun(observation) or tracking
        return tracking, is_followed, doubtful

    def _guessed(self) -> bool:
        """Whether a pose, as far as it is only what was expected, is a guess: one frame goes on as those before it."""
        return not self._motion.refine and (self._open > 1 or (self._open > 0 and self._motion.velocity is None))

    def _accept(self, observation: Observation, tracking: Tracking, followed: bool, doubtful: bool) -> None:
        """Remember a pose that was found."""
        frame, T = observation.frame, tracking.T_world_camera
        self._absence.ended(observation.depth)
        if not self.submaps.changes:
            self.submaps.enter(frame.index, 0)
        elif self.lost or not followed:  # begun, or found in the map
            self.submaps.enter(frame.index, tracking.submap or self.submaps.nearest(T, self.keyframes))
        self._motion.moved_to(frame, T, self.lost)
        if not followed:
            self._motion.velocity = None
        if tracking.sound and tracking.covariance is not None:
            self._usual += (0.05 if self._usual else 1.0) * (tracking.evidence - self._usual)
        if tracking.sound and (tracking.submap or not doubtful):  # what begins a sub-map is all that it has
            self._reference = Reference(T, observation, None)
            self._keep(observation, T)

    def velocity_at(self, frame: Frame) -> np.ndarray | None:
        """(6,) twist a second, camera frame, by which the camera comes to a frame; None where it is not known."""
        return None if self.lost else self._motion.steady_velocity(frame)

    def predicted_pose(self, observation: Observation) -> np.ndarray | None:
        """T_world_camera (4, 4) where the frame is expected; None where only a proposal will tell."""
        if self._motion.last is not None:
            return self._motion.expected(observation.frame, self.lost)
        T = observation.frame.T_world_camera
        return np.eye(4) if T is None and self.propose is None else T

    def track(self, observation: Observation, view: View, T_prior: np.ndarray) -> Tracking:
        """The pose of an observation, which needs normals, against a view of the map, searched around T_prior."""
        c = self.config
        found = self.register(observation, view, T_prior)
        self._open = self._open + 1 if found.std > OPEN else 0
        self._unmeasured = self._unmeasured + self._left_open(found, T_prior) if self._open else 0.0
        lost = why_lost(found, T_prior, self._unmeasured, c)
        if not lost and self._motion.is_gap(observation.frame) and not self._motion.refine and not fits(found, c):
            lost = f"no pose for more than {self._motion.gap:.1f} s, and the map does not fit well enough"
        if not lost and self.lost and (poor := why_poor(found, c)):
            lost = poor  # the search starts from a guess: half a fit is none
        tracking = judged(found, lost, c)
        if not self.lost:
            self._measuring.learn(found, tracking)
        return tracking

    def _left_open(self, found: Registration, T_prior: np.ndarray) -> float:
        """Metres squared: what a registration leaves open. As far as the motion expected is all that holds the pose,
        this grows with how far it leads, and from frame to frame: speed may have changed in each since the last that
        measured it."""
        expected = 0.0 if self._motion.last is None else np.linalg.norm((T_prior - self._motion.last[1])[:3, 3])
        share = min(found.std / self.config.registration.prior_translation, 1.0) ** 2
        return float(found.std**2 + share * (self._open * CHANGE * expected) ** 2)

    def _determined(self) -> None:
        """Begin anew to count what registration leaves open: something else has determined the pose."""
        self._unmeasured, self._open = 0.0, 0

    def register(self, observation: Observation, view: View, T_prior: np.ndarray) -> Registration:
        """Register without judging; for those who have their own reasons to believe or not."""
        return self._measuring.register(observation, view, T_prior)

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

    def _begun(self, observation: Observation) -> Tracking | None:
        """A new sub-map, if the camera has been lost for long, and sees enough to begin one; else None."""
        c, depth = self.config, observation.depth
        is_long = self._absence.is_long(observation.frame.timestamp, c.new_map_after)
        if c.new_map_after <= 0 or not is_long or not self.keyframes.indices:
            return None
        measured = int(np.count_nonzero(depth))
        if measured < max(c.min_points, self._absence.enough * depth.size) or observation.color.std() < 2 * c.black:
            return None
        if (begins := self.submaps.next(self.keyframes)) is None:
            return None
        self._reference = None
        self._determined()
        return Tracking(begins[1], ok=True, inliers=measured, submap=begins[0])

    def _carried(self, observation: Observation, predict: Predict, tracking: Tracking) -> Tracking:
        """A pose in doubt, or left open by registration, beside what sparse features say of the motion since the
        last good frame.

        Where registration started from there is better, or the pose was open and it is as good, that; where nothing
        registers, the features alone, for as long as the uncertainty that adds up allows. Else the pose as it was.
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
        again = judged(found, why_lost(found, T, self._unmeasured, c), c)
        is_open = tracking.std > OPEN
        if again.ok and (not tracking.ok or again.evidence > tracking.evidence + (-0.05 if is_open else 0.05)):
            if is_open:
                self._determined()
            return again
        if tracking.ok:
            return tracking
        self._unmeasured += c.feature_std**2
        if self._unmeasured > c.max_std**2:
            return tracking
        reason = f"{tracking.reason}; the pose is carried over by {by_features.inliers} features"
        return Tracking(T, ok=True, inliers=by_features.inliers, reason=reason, sound=False)

    def _confirmed(self, observation: Observation, predict: Predict, tracking: Tracking) -> Tracking:
        """A registered pose, registered again from where it was found, until it stays there; else lost.

        The view in which it was searched may show little of what a camera sees that has moved on unobserved, and what
        little both show may fit at a wrong pose.
        """
        c, T = self.config, tracking.T_world_camera
        for _ in range(AGAIN):
            found = self.register(observation, predict(T), T)
            lost = why_lost(found, T, self._unmeasured, c) or (why_poor(found, c) if tracking.sound else "")
            if lost or stays(T, found.T_world_camera):
                return judged(found, lost, c)
            T = found.T_world_camera
        return replace(tracking, ok=False, reason="the map leads elsewhere from wherever the camera seems to be")

    def _found(self, observation: Observation, predict: Predict) -> Tracking | None:
        """The pose of a lost frame by the keyframes that look like it, or by what is proposed, or None."""
        for T in self._candidates(observation):
            found = self.settled(observation, predict, T)
            if found is not None:
                self._determined()
                return judged(found, "", self.config)
        return None

    def settled(self, observation: Observation, predict: Predict, T_near: np.ndarray) -> Registration | None:
        """The pose of an observation near a guess; None where the map does not fit there, or leads elsewhere from each
        pose found."""
        found = self.register(observation, predict(T_near), T_near)
        for _ in range(AGAIN):
            if not fits(found, self.config):
                return None
            T = found.T_world_camera
            found = self.register(observation, predict(T), T)
            if stays(T, found.T_world_camera):
                return found if fits(found, self.config) else None
        return None

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

    def world_moved(self, correction: Correction) -> None:
        """Keyframes and the last pose follow the map."""
        keyframes = self.keyframes
        if len(keyframes):
            moved = correction.corrected(keyframes.indices, np.stack(keyframes.T_world_camera))
            keyframes.T_world_camera = [poses.orthonormalized(T) for T in moved]
        self._motion.world_moved(correction)
        if correction.joined is not None:
            self.submaps.join(*correction.joined)
        if self._reference is not None:
            self._reference.T_world_camera = self._motion.corrected(correction, self._reference.T_world_camera)

    def begin_lost(self, keyframes: Keyframes) -> None:
        """Begin in a map that exists, with its keyframes, at least one; where in it is not known."""
        self.keyframes, self.lost = keyframes, True
        self._announcements.told = "poor"  # where it is found is no warning
        self.submaps.enter(keyframes.indices[0], 0)

    def state(self) -> dict[str, np.ndarray]:
        """What has to be kept to go on later as if nothing had happened; for `restore`."""
        return {
            **self._motion.state(),
            "unmeasured": np.array(self._unmeasured),
            "open": np.array(self._open),
            "lost": np.array(self.lost),
            "usual": np.array(self._usual),
            **self._announcements.state(),
            "submaps": self.submaps.state(),
            **self._absence.state(),
            **self.noise.state(),
            **prefixed("reference_", self._reference.state() if self._reference is not None else {}),
            **prefixed("keyframe_", self.keyframes.state()),
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a `state`."""
        self._motion.restore(state)
        self._unmeasured, self.lost = float(state["unmeasured"]), bool(state["lost"])
        self._usual, self._open = float(state["usual"]), int(state["open"])
        self._announcements.restore(state)
        self.submaps.restore(state["submaps"])
        self._absence.restore(state)
        self.noise.restore(state)
        self._reference = Reference.restored(under_prefix("reference_", state)) if "reference_pose" in state else None
        self.keyframes.restore(under_prefix("keyframe_", state))
