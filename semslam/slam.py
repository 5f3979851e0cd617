"""The system on one screen: perceive, track, fuse."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from semslam.camera import Camera
from semslam.cloud import SurfelCloud
from semslam.depth.corrections import CorrectionsConfig, fusion_config
from semslam.depth.multiview import MultiViewConfig
from semslam.depth.synchronised import Synchroniser
from semslam.engine.associations import Associations
from semslam.engine.fusion import Fusion, FusionConfig
from semslam.engine.labels.label_fusion import LabelFusionConfig, label_fusion
from semslam.engine.surfels import MapConfig, SurfelMap
from semslam.frame import Frame, Observation, Step, Tracking, View
from semslam.images.frame_check import check_frame, check_tracking
from semslam.loops.loop_closure import LoopCloser
from semslam.loops.settings import LoopConfig
from semslam.perception import Network, Perceive, Perception, PerceptionConfig
from semslam.stage import Stage, stage_of
from semslam.tracking.attached import Attached
from semslam.tracking.given_poses import GivenPoses
from semslam.tracking.judgement import TrackingConfig
from semslam.tracking.relocalisation.places import Places
from semslam.tracking.tracker import Tracker
from semslam.tracking.visual.config import VisualConfig

Predict = Callable[[np.ndarray], View]  # T_world_camera -> what the map shows from there
Track = Callable[[Observation, Predict], Tracking]
Correct = Callable[[Observation, Predict], Observation]


@dataclass(frozen=True)
class SlamConfig:
    """The stages' settings; the defaults reconstruct a room from a Kinect-like sensor."""

    perception: PerceptionConfig = field(default_factory=PerceptionConfig)
    map: MapConfig = field(default_factory=MapConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    labels: LabelFusionConfig = field(default_factory=LabelFusionConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    loops: LoopConfig = field(default_factory=LoopConfig)
    corrections: CorrectionsConfig = field(default_factory=CorrectionsConfig)  # of predicted depth
    visual: VisualConfig = field(default_factory=VisualConfig)  # tracking without a depth camera
    multiview: MultiViewConfig = field(default_factory=MultiViewConfig)  # depth by parallax


class Slam:
    """Dense semantic SLAM: each frame's depth and classes, at the pose that tracking finds, go into one surfel map."""

    def __init__(
        self,
        camera: Camera,
        config: SlamConfig | None = None,
        *,
        perceive: Perceive | None = None,
        num_classes: int = 0,
        track: Track | None = None,
        correct: Correct | None = None,
        loops: LoopCloser | None = None,
        places: Places | None = None,
        label_set: str | None = None,
        network: Network | None = None,
    ) -> None:
        """camera: that of the frames. track: the frames' own poses by default. correct: what is done to an observation
        before it is tracked, a `DepthCorrections` for example; by default a tracked camera's rows are moved to one
        moment. label_set: that of the frames' labels, if any. loops: of the tracker that is `track`. places: to which
        views of the map are added, to come back to; those of the tracker, where there is one. network: see Perception.
        `perceive` replaces the whole first stage: its observations then have the size of `camera` and `num_classes`
        classes."""
        self.config = config or SlamConfig()
        for name, given, kind in (("camera", camera, Camera), ("config", self.config, SlamConfig)):
            if not isinstance(given, kind):
                raise TypeError(f"the {name} is {type(given).__name__}, expected {kind.__module__}.{kind.__name__}")
        if loops is not None and loops.tracker is not track:
            raise ValueError("`loops` watches another tracker than `track`; make it as LoopCloser(track)")
        perception = Perception(self.config.perception, camera, label_set, network) if perceive is None else None
        self.perceive: Perceive = perceive or perception  # type: ignore[assignment]
        self.network = network
        self.track: Track = track or GivenPoses(config=self.config.tracking)
        if correct is None and isinstance(self.track, Tracker) and self.config.perception.synchronise:
            correct = Synchroniser(self.track.velocity_at, self.config.perception.readout or 0.0)
        self.correct = correct
        # given poses may be off by more than the camera moves, and then much seems to stay
        of_sensor = self.config.perception.depth == "sensor"
        self.attached = Attached() if of_sensor and isinstance(self.track, Tracker) else None
        self.loops = loops
        self.places = places
        fusion = self.config.fusion
        if self.config.perception.depth == "predicted":
            fusion = fusion_config(self.config.corrections, fusion)
        self.fusion = Fusion(perception.camera if perception else camera, fusion)
        if isinstance(self.track, Tracker):
            self.track.submaps.far = self.fusion.config.range[1]
        classes = perception.num_classes if perception else num_classes
        self.surfels = SurfelMap(classes, self.config.map.reaching(self.fusion.config.range[1]))
        self.labels = label_fusion(self.config.labels)
        self.associations: Associations | None = None  # see `remember`
        self.stepped = 0  # frames

    def run(self, frames: Iterable[Frame]) -> Iterator[Step]:
        """Step through frames; drawing, files and progress happen between steps, in the caller."""
        return (self.step(frame) for frame in frames)

    def step(self, frame: Frame) -> Step:
        """One frame through the system.

        ValueError, before anything changes, where its arrays are not what `Frame` says: colour (H, W, 3) uint8 RGB of
        its camera's size, depth (H, W) float32 metres of the same aspect, pose (4, 4) rigid.
        """
        check_frame(frame)
        watch = _Stopwatch()
        observation = self.perceive(frame)
        watch.lap("perceive")
        if self.correct is not None:
            observation = self.correct(observation, self.predict)
            watch.lap("correct")
        if self.attached is not None:
            observation = self.attached(observation)
            watch.lap("attached")
        prepared = self.fusion.prepare(observation)
        watch.lap("filter")
        tracking = self.track(prepared, self.predict)
        check_tracking(frame, tracking)
        for stage in self.stages.values():
            stage.tracked(tracking)
        watch.lap("track")
        correction = None
        believed = tracking.ok and tracking.sound  # a lost frame must not smear the map
        fused = believed and prepared.measures
        if fused:
            self.fusion.fuse(self.surfels, prepared, tracking.T_world_camera, frame.index)
            watch.lap("fuse")
            if observation.class_probabilities is not None:
                self.labels.fuse(
                    self.surfels,
                    self.fusion.visible,
                    self.fusion.pixels,
                    observation.class_probabilities,
                    tracking.T_world_camera,
                )
                watch.lap("labels")
            if self.associations is not None and self.stepped % self.associations.every == 0:
                self.associations.seen(frame.index, tracking.T_world_camera, self.surfels, self.fusion)
        if fused and self.places is not None:
            self.places.see(prepared, tracking.T_world_camera)
            watch.lap("places")
        if believed and self.loops is not None:
            correction = self.loops(prepared, tracking, self.surfels, self.fusion)
            if correction is not None:
                for stage in self.stages.values():
                    stage.world_moved(correction)
            watch.lap("loops")
        self.stepped += 1
        return Step(frame, observation, tracking, fused, watch.stages_ms, correction)

    @property
    def stages(self) -> dict[str, Stage]:
        """The parts that remember something between frames, by the names that their states have in a run's file."""
        parts: dict[str, object] = {
            "perception": self.perceive,
            "fusion": self.fusion,
            "tracker": self.track,
            "loops": self.loops,
            "labels": self.labels,
            "correct": self.correct,
            "places": self.places,
            "attached": self.attached,
        }
        return {name: stage_of(part) for name, part in parts.items()}

    def remember(self, associations: Associations) -> None:
        """From now on keep what is needed to fuse other labels into the map later."""
        self.associations = self.surfels.journal = associations

    def predict(self, T_world_camera: np.ndarray) -> View:
        """What the map looks like from a pose."""
        return self.fusion.predict(self.surfels, T_world_camera)

    def cloud(self, min_confidence: float = 0.0) -> SurfelCloud:
        """The map so far, as plain arrays."""
        probabilities = self.labels.probabilities(self.surfels) if self.surfels.num_classes else None
        return self.surfels.cloud(probabilities, min_confidence)


class _Stopwatch:
    def __init__(self) -> None:
        self.stages_ms: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.stages_ms[stage] = (now - self._last) * 1e3
        self._last = now
